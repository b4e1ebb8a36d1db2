"""One file a section. Each makes it from the documents, or says which command gives the evidence that is missing."""

"""`halfbyte convert`: an NVFP4 checkpoint from one layout into the other, without loss."""

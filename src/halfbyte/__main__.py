"""`python -m halfbyte`"""

from halfbyte.cli.main import main

main()

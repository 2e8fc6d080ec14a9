import sys

from distbelief.cli import main

sys.exit(main())

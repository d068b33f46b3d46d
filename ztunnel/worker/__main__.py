import sys

from ztunnel.worker.main import main

sys.exit(main())

import sys

try:
    from backend.cli import main
except ValueError as error:  # a file of a method that is not what it must be
    sys.exit(f"certscope: {error}")

sys.exit(main())

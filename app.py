"""RAMoLE's page, from a clone or on a Space; an installation has the command `ramole page`."""

from ui.program import run

if __name__ == "__main__":
    run()

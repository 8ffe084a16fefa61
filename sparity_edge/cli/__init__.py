"""The command line: `main` parses, `options` declares, `commands` carries out."""

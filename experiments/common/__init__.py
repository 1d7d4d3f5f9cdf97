"""What the figure scripts share: settings, runs, tables, plots, command line."""

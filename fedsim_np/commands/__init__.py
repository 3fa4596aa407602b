"""The commands of ``fedsim-np``, a module each: arguments in, results to standard output and to files."""

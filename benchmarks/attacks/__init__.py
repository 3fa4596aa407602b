"""Attacks that soak.py repeats: each is made from a good file and a number, so that each can be made again.

`hdf5_files` and `hdf5_reader`: strangers' HDF5 files. `small_files`: one byte of every other kind of file.
`run_folders`: links, bombs and odd values in a run. `processes`: forks, removed logs, killed parents. `kept_rows`: what
is kept of data that change. A part returns what came of it as JSON can hold it; "came through" lists what should not
have.
"""

"""Runs llama.cpp's own server and prints its address. The process ends when its standard input is closed.

Usage: llama_server.py MODEL SEQUENCES. The server takes SEQUENCES requests at the same time.
"""

import sys

import xllamacpp

model, sequences = sys.argv[1], int(sys.argv[2])
params = xllamacpp.CommonParams()
params.model.path = model
params.model_alias = {"small"}
params.n_parallel = sequences
params.n_ctx = 1024 * sequences
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.port = 0
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()

"""What the search is made of: a play of random steps before a gateway in a process of its own, vendors that keep what
they are told, and a model of what each of them must have in the end.

`passing` is the time of a play; `things` what a vendor has, and its bad days; `pagers`, `genies` and `rules` are the
vendors, each as its public documentation has it; `words` is what callers say; `alerts` the model; `house` the gateway
and its configuration; `play` the steps; `judging` what must hold. Nothing here looks into the gateway but into its
store's file, to see that nothing waits any more.
"""

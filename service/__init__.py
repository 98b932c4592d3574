"""An HTTP service on the library: upload a model, get its certificate; send inputs, get certified predictions.

request ──routes──► certifying ──jobs, child──► certifier ──► store
                    runtime ◄── store
"""

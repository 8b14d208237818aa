"""The simulated world: the machines' own code over a simulated network, disk, clock and process table.

    world     the verbs of `harness.world.World`, the event loop and its virtual time
    node      one process: a machine, its timers, its notes, its life and death
    wire      links: what an effect does to bytes in time, with Toxiproxy's meanings
    disk      logs and files: what is durable when, and what a crash leaves
    observe   samples, clock readings and witnesses, on a path of their own
    dice      named random streams from one seed

Everything is a function of the seed: no clock, no hash order, no identity of an object is ever read.
"""

"""The simulated world: the machines' own code over a simulated network, disk, clock and process table.

    world     the verbs of `harness.world.World`
    clock     virtual time: one heap of events and the loop that empties it
    node      one process: a machine, its timers, its notes, its life and death
    trap      crash points: before which outgoing value a process dies
    wire      links: what an effect does to bytes in time, with Toxiproxy's meanings
    disk      logs and files: what is durable when, and what a crash leaves
    forces    how each force is applied, read back, witnessed and undone
    witness   who can show that a fault landed
    observe   samples and clock readings, on a path of their own
    dice      named random streams from one seed

Everything is a function of the seed: no clock, no hash order, no identity of an object is ever read.
"""

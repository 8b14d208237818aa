"""Named sabotages of the reference trader: what no drill has ever caught, no drill can be trusted to catch.

A mutant is a factory like the product's own ``make``. It makes the real trader and spoils one organ of that one
instance, so that two machines in one process never infect each other, and so that the product needs no switch for it.
``catalogue.yaml`` says of each mutant which drill catches it by which check; ``tests/mutants`` holds that as a test.

    drillproof run 2_market_data_stale --world sim --machine trader=system_under_test.mutants.market:never_stale
"""

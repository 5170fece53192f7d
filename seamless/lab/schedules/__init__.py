"""Random schedules of faults on the simulated lab: what a seed draws, how it is played, and the rules it must keep.

    python -m seamless.lab.schedules --seeds 1-1000

A *schedule* is a network, faults with their times, and what applications do. It follows from its seed alone, and so
does all that happens when it is played on virtual time: a seed that fails fails again. The code can be read in this
order:

* ``plan``: what a schedule holds, as plain values, and the configuration that it needs;
* ``faults`` and ``node_faults``: what each kind of fault does to the simulation, and how it shows that it took effect;
* ``draw``: from a seed to a schedule;
* ``conditions``: which nodes could reach each other, and when; it decides whether a reset was justified;
* ``rules``: what one end of a stream may see, and when; it is the oracle;
* ``applications``: plays the applications of a schedule, and tells the oracle all they see;
* ``watch``: no stall while there is a path, and nothing left over after quiet;
* ``play``: plays a schedule from its beginning to quiet;
* ``shrink``: finds a smaller schedule that breaks the same rule;
* ``__main__``: the program.
"""

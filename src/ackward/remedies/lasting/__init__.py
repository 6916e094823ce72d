"""How long a remedy lasts, the same for every remedy: a lease that ends by itself, a unit that outlives the boot.

Laws:

1. What ends a leased remedy exists before the first change, and goes after the receipt: killed at any step, the
   remedy ends when its time is up.
2. What ends it asks the receipt, under the lock, whether its time is up: an earlier lease never ends a renewed one.
3. A unit of ours applies the very request again, and its name is the receipt's: after each boot the receipt has the
   same id, and undo removes both.
"""

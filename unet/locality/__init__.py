"""How local a network is: stride, reach, halo, sizes, crop and scale of any callable, measured instead of declared."""

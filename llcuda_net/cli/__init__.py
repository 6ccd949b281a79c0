"""The command lines. Each imports what it needs when it runs, so that `--help` costs nothing.

The modules of the groups (`client`, `results`, `top`, `batch`) import those beside them in this
package, apart from `main` and `entry_points`, which start the groups; groups do not import each
other. All of llcuda_net lies below.
"""

"""The built-in components: ordinary plugins that need no package beyond the core's own dependencies.

Each module in `BUILT_INS` is a plugin: options classes, specs and hooks, and nothing heavy. The implementations stand
in the modules beside them, which `lazy` imports when a component is built.
"""

from sage_kit.builtin import (
    decoders,
    families,
    filters,
    inverters,
    lifts,
    losses,
    metrics,
    observers,
    reducers,
    samplers,
    stop_rules,
    task_kinds,
    tasks,
)

BUILT_INS = (
    task_kinds, tasks, metrics, reducers, samplers, inverters, lifts, filters, losses, decoders, stop_rules, observers,
    families,
)  # fmt: skip
"""The plugins that are registered before all others, in this order."""

"""What all models of ivy have in common. Knows none of them."""

import pydantic


class Model(pydantic.BaseModel):
    """A model that costs a service nothing until it is used.

    Its validator is built at its first use: a procedure knows all models, and validates two. And pydantic keeps no
    cache of the strings it has read, which would take a quarter of a megabyte and gain nothing in a config.
    """

    model_config = pydantic.ConfigDict(defer_build=True, cache_strings=False)

# %% [markdown]
# # Explore a collection
# Run `make demo` first. Then run this file as a script, or cell by cell in an editor that knows
# `# %%` cells (Jupyter opens it with jupytext).

# %%
import polars as pl

import search

covers = search.Searcher(search.connect(".demo/covers"))
print(covers.status())

# %% [markdown]
# ## The nearest performances, as a table
# `probability` is the probability that a match is a version of the query. It is None if the bundle
# has no calibration.

# %%
matches = covers.similar("P_249990", limit=20, rerank=True)
table = pl.DataFrame(matches).select("track_id", "title", "distance", "probability", "same_work")
print(table)

# %% [markdown]
# ## What an alignment says
# Which part of the query runs along with which part of the match, in seconds, and how many
# semitones lie between them.

# %%
print(matches[0].alignment)

# %% [markdown]
# ## Which work is it?

# %%
identification = covers.identify("P_249990")
print(identification.work)
print(f"{identification.probability_of_none:.0%} that no version of it is here")

# %% [markdown]
# ## The collection as a whole
# Every query at once, and how often the nearest performance is a version.

# %%
vectors = pl.read_parquet(".demo/covers/vectors/*/vectors.parquet")
answers = covers.similar_many(vectors["track_id"].to_list(), limit=1)
right = pl.Series([nearest[0].same_work for nearest in answers])
print(f"{right.mean():.0%} of the nearest performances have the same work")

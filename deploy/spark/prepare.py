"""Prepare ratings by Spark: a folder that `-P ratings=…` of recsys takes for a dataset (docs/your-data.md).

    spark-submit prepare.py ratings.csv OUTPUT        with src/ of recsys on PYTHONPATH of driver and workers

A pattern of files, or any table of Spark in place of `spark.read.csv`, does as well. Ids come back to the driver,
ratings do not.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as f

from recsys.data import layout, splits
from recsys.data.preparation import Preparation

ratings, output = sys.argv[1], Path(sys.argv[2])
preparation = Preparation(ratings=ratings)
spark = SparkSession.builder.appName("recsys").getOrCreate()
spark.conf.set("spark.sql.session.timeZone", "UTC")

given = spark.read.csv(ratings, header=True, schema="user_id string, item_id string, rating double, timestamp double")
newest = Window.partitionBy("user_id", "item_id").orderBy(f.desc("timestamp"))
rows = (  # the cleaning of prepare: no missing values, rated above 0, of a repeated pair the newest
    given.dropna().where("rating > 0").withColumn("place", f.row_number().over(newest)).where("place = 1").drop("place")
)


def part_of(blocks: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Each pair's part by its hash, as prepare decides it."""
    for block in blocks:
        users, user_ids = pd.factorize(block["user_id"])
        items, item_ids = pd.factorize(block["item_id"])
        hashes = splits.hash_pairs(np.asarray(user_ids), np.asarray(item_ids), users, items)
        yield block.assign(
            part=splits.split_by_hash(hashes, preparation.test_size, preparation.validation_size).astype("i4")
        )


rows = rows.mapInPandas(part_of, f"{rows.schema.simpleString()[7:-1].replace(':', ' ')}, part int").cache()
train = rows.where("part = 0")
everyone = train.agg(f.avg("rating"), f.stddev_pop("rating")).first()


def side(name: str, partner: str) -> pd.DataFrame:
    """The table of users or of items: their row number is their place among the sorted ids."""
    known = train.groupBy(f"{name}_id").agg(
        f.avg("rating").alias("average"), f.stddev_pop("rating").alias("std"), f.count("*").alias("n")
    )
    table = rows.select(f"{name}_id").distinct().join(known, f"{name}_id", "left").orderBy(f"{name}_id").toPandas()
    n = table["n"].fillna(0).astype("int64")
    return pd.DataFrame(
        {
            f"{name}_id": table[f"{name}_id"],
            "average_rating": table["average"].where(n > 0, everyone[0]),
            "rating_std": table["std"].where(n > 1, everyone[1]),
            "rating_count": n,
            f"unique_{partner}s": n,
        }
    )


output.mkdir(parents=True)
codes = {}
for name, partner in (("user", "item"), ("item", "user")):
    table = side(name, partner)
    table.to_parquet(output / f"{name}s.parquet", index=False)
    codes[name] = spark.createDataFrame(
        pd.DataFrame({f"{name}_id": table[f"{name}_id"], name: table.index.astype("i4")})
    )
coded = rows.join(f.broadcast(codes["user"]), "user_id").join(f.broadcast(codes["item"]), "item_id")
for number, name in enumerate(("train", "validation", "test")):
    part = coded.where(f"part = {number}").select(
        f.col("user").cast("int"), f.col("item").cast("int"), "rating", "timestamp"
    )
    # At most 1,048,576 rows a file and so a row group; sorted, so that the same ratings give the same bytes.
    part.repartitionByRange("user", "item").sortWithinPartitions("user", "item").write.option(
        "maxRecordsPerFile", 1 << 20
    ).parquet(str(output / name))
print("dataset", layout.seal(output, preparation, rows_read=given.count()))

"""The DataComp basic filter in DuckDB or polars, for benches/datacomp.sh: prints seconds, peak megabytes and rows kept."""
import resource
import sys
import time

engine, folder, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
started = time.perf_counter()
if engine == "duckdb":
    import duckdb
    db = duckdb.connect()
    db.execute(f"SET threads = {threads}; SET memory_limit = '8GB'; SET preserve_insertion_order = false")
    # The same answer as a list of row numbers, which is what a selection holds.
    kept = db.sql(f"""
        WITH shards AS (SELECT filename, file_row_number, width, height, caption, language, score
                        FROM read_parquet('{folder}/*.parquet', filename = true, file_row_number = true))
        SELECT filename, file_row_number FROM shards
        WHERE language = 'en' AND width >= 200 AND height >= 200 AND width <= 3 * height AND height <= 3 * width
          AND score >= (SELECT quantile_cont(score, 0.7) FROM shards)
          AND length(caption) > 5 AND len(string_split(caption, ' ')) > 2""").to_arrow_table().num_rows
else:
    import os
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    import polars as pl
    shards = pl.scan_parquet(f"{folder}/*.parquet", row_index_name="row", include_file_paths="file")
    threshold = shards.select(pl.col("score").quantile(0.7, "linear")).collect(engine="streaming").item()
    width, height = pl.col("width"), pl.col("height")
    kept = shards.filter(
        (pl.col("language") == "en") & (width >= 200) & (height >= 200) & (width <= 3 * height) & (height <= 3 * width)
        & (pl.col("score") >= threshold) & (pl.col("caption").str.len_chars() > 5) & (pl.col("caption").str.split(" ").list.len() > 2)).select("file", "row").collect(engine="streaming").height
seconds = time.perf_counter() - started
usage = resource.getrusage(resource.RUSAGE_SELF)
# Of the whole process: ours counts its start as well.
print(f"{engine} {seconds:.2f} s {usage.ru_utime + usage.ru_stime:.2f} s of processors {usage.ru_maxrss / 1024:.0f} MB {kept} rows")

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
    kept = db.execute(f"""
        WITH shards AS (SELECT filename, file_row_number, width, height, caption, language, score
                        FROM read_parquet('{folder}/*.parquet', filename = true, file_row_number = true))
        SELECT filename, file_row_number FROM shards
        WHERE language = 'en' AND len(string_split(caption, ' ')) > 2 AND length(caption) > 5
          AND least(width, height) >= 200 AND greatest(width, height) <= 3 * least(width, height)
          AND score >= (SELECT quantile_cont(score, 0.7) FROM shards)""").to_arrow_table().num_rows
else:
    import os
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    import polars as pl
    shards = pl.scan_parquet(f"{folder}/*.parquet", row_index_name="row", include_file_paths="file")
    threshold = shards.select(pl.col("score").quantile(0.7, "linear")).collect(engine="streaming").item()
    low, high = pl.min_horizontal("width", "height"), pl.max_horizontal("width", "height")
    kept = shards.filter(
        (pl.col("language") == "en") & (pl.col("caption").str.split(" ").list.len() > 2) & (pl.col("caption").str.len_chars() > 5)
        & (low >= 200) & (high <= 3 * low) & (pl.col("score") >= threshold)).select("file", "row").collect(engine="streaming").height
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{engine} {seconds:.2f} s {peak:.0f} MB {kept} rows")

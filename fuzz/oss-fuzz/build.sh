#!/bin/bash -eu
# Builds all targets, with their corpora and dictionaries beside them.
cd "$SRC/hikyaku"
cargo fuzz build -O
for source in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$source" .rs)
    cp "fuzz/target/x86_64-unknown-linux-gnu/release/$target" "$OUT/"
    zip -q -j "$OUT/${target}_seed_corpus.zip" fuzz/corpus/"$target"/*
    if [ -f "fuzz/dict/$target" ]; then
        cp "fuzz/dict/$target" "$OUT/$target.dict"
    fi
done

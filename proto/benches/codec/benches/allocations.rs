//! Allocations per packet: the same benchmarks under an allocator that counts, which makes allocating slower.

mod peers;

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}

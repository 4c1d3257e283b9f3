//! Time per packet, beside other crates. `./rounds` makes the table of docs/performance.md of it.

mod peers;

fn main() {
    divan::main();
}

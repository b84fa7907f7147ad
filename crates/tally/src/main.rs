//! The command `tally`; everything is in the library.

fn main() {
    tally_cli::main();
}

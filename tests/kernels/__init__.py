"""The shipped programs on other kernels than this machine's: each boots in an emulator, over this root directory."""

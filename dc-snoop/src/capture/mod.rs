//! `-write` and `-read`: what passed as packets in a file, as Wireshark and tcpdump know them.

pub(crate) mod conversation;
pub(crate) mod file;
pub(crate) mod packet;
pub(crate) mod reassembly;
pub(crate) mod writer;

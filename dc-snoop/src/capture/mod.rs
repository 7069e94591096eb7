//! `-write` and `-read`: captured traffic as packets in a file that Wireshark and tcpdump can read.

pub(crate) mod conversation;
pub(crate) mod file;
pub(crate) mod packet;
pub(crate) mod reassembly;
pub(crate) mod writer;

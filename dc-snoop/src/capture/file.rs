//! Capture files: written as pcapng, read as that or as the older pcap.
//!
//! Our files have one interface of raw IP packets with nanoseconds. A pcapng timestamp counts in the unit of
//! its interface (`if_tsresol`, by default microseconds). The crate returns the count as if it were
//! nanoseconds, so it is converted here.

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{Block, PcapNgReader, PcapNgWriter};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};
use std::borrow::Cow;
use std::io::{Cursor, Read};
use std::time::Duration;

/// The first bytes of a pcapng file, the same in either byte order.
const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// `if_tsresol` of our files: 10⁻⁹ seconds.
const NANOSECONDS: u8 = 9;
/// `if_tsresol` of a file that has none.
const MICROSECONDS: u8 = 6;

/// Makes the blocks of a pcapng file; they are taken from [`take`](Self::take) to be written.
pub(crate) struct PcapngBlocks(PcapNgWriter<Vec<u8>>);

impl PcapngBlocks {
    /// With the header of the file in it.
    pub(crate) fn new(description: &str) -> Result<Self, PcapError> {
        let program = concat!("dc_snoop ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::Big,
            options: vec![SectionHeaderOption::UserApplication(Cow::Borrowed(program))],
            ..SectionHeaderBlock::default()
        };
        let mut writer = PcapNgWriter::with_section_header(Vec::new(), section)?;
        writer.write_pcapng_block(InterfaceDescriptionBlock {
            linktype: DataLink::RAW,
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed("dc_snoop")),
                InterfaceDescriptionOption::IfDescription(Cow::Owned(description.to_owned())),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        })?;
        Ok(Self(writer))
    }

    /// Appends an IP packet.
    pub(crate) fn packet(
        &mut self,
        at: Duration,
        packet: &[u8],
        comment: Option<String>,
    ) -> Result<(), PcapError> {
        self.0.write_pcapng_block(EnhancedPacketBlock {
            interface_id: 0,
            timestamp: at,
            original_len: packet.len() as u32,
            data: Cow::Borrowed(packet),
            options: comment.map(|it| EnhancedPacketOption::Comment(Cow::Owned(it))).into_iter().collect(),
        })?;
        Ok(())
    }

    /// The bytes to write.
    pub(crate) fn drain(&mut self) -> Vec<u8> {
        std::mem::take(self.0.get_mut())
    }

    /// Number of bytes to write.
    pub(crate) fn len(&self) -> usize {
        self.0.get_ref().len()
    }
}

/// Reads packets from a capture file.
pub(crate) enum CaptureReader<R: Read> {
    Pcap(PcapReader<Prefixed<R>>),
    PcapNg(PcapNgReader<Prefixed<R>>),
}

/// A file whose beginning has been looked at.
type Prefixed<R> = std::io::Chain<Cursor<Vec<u8>>, R>;

/// A packet of a capture.
#[derive(Debug)]
pub(crate) struct CapturedPacket {
    pub(crate) at: Duration,
    pub(crate) link: DataLink,
    pub(crate) packet: Vec<u8>,
}

impl<R: Read> CaptureReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// If the file cannot be read or is no capture.
    pub(crate) fn new(mut file: R) -> Result<Self, PcapError> {
        let mut magic = Vec::new();
        file.by_ref().take(4).read_to_end(&mut magic).map_err(PcapError::IoError)?;
        let is_pcapng = magic == SECTION_HEADER;
        let file = Cursor::new(magic).chain(file);
        Ok(if is_pcapng {
            Self::PcapNg(PcapNgReader::new(file)?)
        } else {
            Self::Pcap(PcapReader::new(file)?)
        })
    }

    /// The next packet, `None` at the end of the file.
    ///
    /// # Errors
    /// If the file cannot be read on, or ends inside a packet.
    pub(crate) fn next(&mut self) -> Result<Option<CapturedPacket>, PcapError> {
        match self {
            Self::Pcap(reader) => {
                let header = reader.header();
                let Some(raw) = reader.next_raw_packet() else { return Ok(None) };
                let raw = raw?;
                let fraction = match header.ts_resolution {
                    TsResolution::MicroSecond => Duration::from_micros(raw.ts_frac.into()),
                    TsResolution::NanoSecond => Duration::from_nanos(raw.ts_frac.into()),
                };
                let at = Duration::from_secs(raw.ts_sec.into()) + fraction;
                Ok(Some(CapturedPacket { at, link: header.datalink, packet: raw.data.into_owned() }))
            }
            Self::PcapNg(reader) => next_of_pcapng(reader),
        }
    }
}

fn next_of_pcapng<R: Read>(reader: &mut PcapNgReader<R>) -> Result<Option<CapturedPacket>, PcapError> {
    loop {
        let Some(block) = reader.next_block() else { return Ok(None) };
        let Block::EnhancedPacket(packet) = block? else { continue };
        let (id, count, data) =
            (packet.interface_id, packet.timestamp.as_nanos() as u64, packet.data.into_owned());
        let interface = reader.interfaces().get(id as usize).ok_or(PcapError::InvalidInterfaceId(id))?;
        let (mut resolution, mut offset) = (MICROSECONDS, 0);
        for option in &interface.options {
            match option {
                InterfaceDescriptionOption::IfTsResol(value) => resolution = *value,
                InterfaceDescriptionOption::IfTsOffset(value) => offset = *value,
                _ => {}
            }
        }
        let at = moment(count, resolution).saturating_add(Duration::from_secs(offset));
        return Ok(Some(CapturedPacket { at, link: interface.linktype, packet: data }));
    }
}

/// `count` units of 10⁻ⁿ seconds or, with the highest bit set, of 2⁻ⁿ.
fn moment(count: u64, resolution: u8) -> Duration {
    let exponent = u32::from(resolution & 0x7f);
    let units =
        if resolution & 0x80 == 0 { 10_u128.checked_pow(exponent) } else { 1_u128.checked_shl(exponent) };
    let Some(units) = units.filter(|units| *units < u128::MAX / 1_000_000_000) else { return Duration::ZERO };
    let (seconds, rest) = (u128::from(count) / units, u128::from(count) % units);
    Duration::new(seconds as u64, (rest * 1_000_000_000 / units) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_have_the_unit_of_their_interface() {
        assert_eq!(moment(1_500_000, 6), Duration::from_millis(1500));
        assert_eq!(moment(1_500_000_000, 9), Duration::from_millis(1500));
        assert_eq!(moment(3, 0x80 | 1), Duration::from_millis(1500));
        assert_eq!(moment(u64::MAX, 127), Duration::ZERO);
        assert_eq!(moment(u64::MAX, 0), Duration::from_secs(u64::MAX));
    }

    #[test]
    fn packets_are_read_as_they_were_written() {
        let at = Duration::new(1_772_366_401, 204_117_391);
        let mut blocks = PcapngBlocks::new("a test").unwrap();
        blocks.packet(at, &[0x45, 1, 2], Some("note".to_owned())).unwrap();
        blocks.packet(at, &[0x45; 60_000], None).unwrap();
        let file = blocks.drain();
        assert_eq!(blocks.len(), 0);
        let mut reader = CaptureReader::new(&file[..]).unwrap();
        let first = reader.next().unwrap().unwrap();
        assert_eq!((first.at, first.link, first.packet), (at, DataLink::RAW, vec![0x45, 1, 2]));
        assert_eq!(reader.next().unwrap().unwrap().packet.len(), 60_000);
        assert!(reader.next().unwrap().is_none());

        let mut cut = CaptureReader::new(&file[..file.len() - 5]).unwrap();
        assert!(cut.next().unwrap().is_some());
        assert!(cut.next().is_err());
        assert!(CaptureReader::new(&b"no capture at all, but longer than a header"[..]).is_err());
    }

    #[test]
    fn the_older_format_is_read_too() {
        let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        file.extend_from_slice(&[3, 0, 0, 0, 1, 0, 0, 0]);
        // A packet of 9 bytes of which 3 were captured.
        file.extend_from_slice(&[1, 0, 0, 0, 0x20, 0xa1, 7, 0, 3, 0, 0, 0, 9, 0, 0, 0, 7, 8, 9]);
        let mut reader = CaptureReader::new(&file[..]).unwrap();
        let packet = reader.next().unwrap().unwrap();
        let expected = (Duration::from_micros(1_500_000), DataLink::ETHERNET, vec![7, 8, 9]);
        assert_eq!((packet.at, packet.link, packet.packet), expected);
        assert!(reader.next().unwrap().is_none());
    }
}

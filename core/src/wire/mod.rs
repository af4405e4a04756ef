//! How messages become bytes on a connection, and bytes messages again.
//!
//! | module | what it is |
//! |---|---|
//! | [`message`] | what members say to each other |
//! | [`frame`] | the format of a frame, its limits, and everything that can be wrong with one |
//! | [`Encoder`] | one connection's sending side: two lanes, coalescing, chunks |
//! | [`Decoder`] | one connection's receiving side, over a stream of bytes |
//! | [`Assembler`] | messages that travel in chunks, while they are incomplete |
//! | [`bounded`] | how many elements each list in a message may have |
//!
//! # A frame
//!
//! At most 64 KiB; numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | length of the body |
//! | 4..8 | CRC-32 of everything from byte 8 on |
//! | 8 | version of this format: 1 |
//! | 9 | kind: 0 `Messages`, 1 `Chunk` |
//! | 10..12 | flags; all 0 in `Messages` |
//! | 12.. | body |
//!
//! The body of `Messages` is one or more whole messages, each in postcard, until the body ends. The
//! body of `Chunk` is a stream number (u32), the chunk's number in it (u32), in chunk 0 the length
//! of the whole message (u32), and a part of the message. Its flags say whether it is the last part
//! (bit 0) and whether it travels in the urgent lane (bit 1).
//!
//! # Two lanes
//!
//! What keeps a cluster alive (beats, votes, acknowledgements, handshakes: [`Message::urgent`])
//! must not wait behind a value of megabytes. Urgent messages go out before all bulk that is
//! queued, also between two chunks of one bulk message. Inside a lane the order is kept, so at most
//! one message of each lane is ever incomplete at the receiver.
//!
//! # What a sender cannot do
//!
//! 1. Make the receiver hold more than it sent: buffers grow with the bytes that came, whatever a
//!    length claims. A [`Decoder`] holds at most one frame that is incomplete and, for each lane,
//!    one message that is.
//! 2. Blow up by decoding: an element of a list takes at most 144 bytes in memory and at most 32
//!    times what it takes on the wire, and a list has at most as many elements as [`bounded`]
//!    allows. So a message of *n* bytes takes some 32·*n* bytes when decoded (twice that while a
//!    list grows), and a list at most 8 MiB beyond the bytes that it was decoded from. No type in a
//!    message is recursive.
//! 3. Spend more than a few kilobytes before it has said who it is: see [`Decoder::accepted`].
//!
//! # Limits
//!
//! The CRC finds accidents, not forgeries: that is the work of TLS below. A bulk message of 16 MiB
//! delays the bulk behind it by its own length.

pub mod bounded;
pub mod frame;
pub mod message;

mod assembler;
mod decoder;
mod encoder;
#[cfg(test)]
mod tests;

pub use assembler::Assembler;
pub use decoder::{Decoder, decode_frame};
pub use encoder::Encoder;
pub use frame::{FRAME_BYTES_MAX, MESSAGE_BYTES_MAX, WireError};
pub use message::Message;

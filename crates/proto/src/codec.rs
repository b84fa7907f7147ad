//! How messages become bytes of gRPC: with protobuf, in buffers of the size that they need.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// What a call's buffers begin with, bytes. They grow by as much as a message needs; tonic's own 8 KiB
/// are far more than most messages, and every call takes two such buffers on each side.
const BUFFER_BYTES: usize = 512;
/// Messages of a stream go out together up to this size, bytes.
const TOGETHER_BYTES_MAX: usize = 32 << 10;

fn settings() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, TOGETHER_BYTES_MAX)
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Messages<Sent, Received>(PhantomData<(Sent, Received)>);

impl<Sent, Received> Default for Messages<Sent, Received> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Sent, Received> Codec for Messages<Sent, Received>
where
    Sent: Message + Send + 'static,
    Received: Message + Default + Send + 'static,
{
    type Encode = Sent;
    type Decode = Received;
    type Encoder = Whole<Sent>;
    type Decoder = ProstDecoder<Received>;

    fn encoder(&mut self) -> Self::Encoder {
        Whole(ProstEncoder::new(settings()))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<Sent, Received>::raw_decoder(settings())
    }
}

/// Encodes a message into a buffer that it fits into, so that it is not copied while the buffer grows.
#[derive(Clone, Debug)]
pub struct Whole<Sent>(ProstEncoder<Sent>);

impl<Sent: Message> Encoder for Whole<Sent> {
    type Item = Sent;
    type Error = Status;

    fn encode(&mut self, message: Sent, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        self.0.encode(message, buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

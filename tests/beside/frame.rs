//! What goes over the stream to a far end, by hand.

/// A frame.
pub(crate) fn frame(flow: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap();
    [
        &len.to_be_bytes()[..],
        &flow.to_be_bytes(),
        &[kind],
        payload,
    ]
    .concat()
}

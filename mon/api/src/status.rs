//! A failed call as gRPC carries it: our code rides beside the one gRPC knows.

use nacre_proto::status::{Code, Status};

const CODE: &str = "nacre-code";

/// As it is sent.
pub fn to_grpc(status: &Status) -> tonic::Status {
    let mut sent = tonic::Status::new(tonic::Code::from_i32(status.code.row().grpc.into()), &status.text);
    sent.metadata_mut().insert(CODE, status.code.number().into());
    sent
}

/// As it arrives. One that no monitor made (a broken connection) counts as lost before the answer.
pub fn from_grpc(status: &tonic::Status) -> Status {
    let number = status.metadata().get(CODE).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    let code = match (number, status.code()) {
        (Some(number), _) => Code::from_number(number),
        (None, tonic::Code::DeadlineExceeded | tonic::Code::Cancelled) => Code::TimedOut,
        (None, tonic::Code::Unimplemented) => Code::Unsupported,
        (None, _) => Code::Disconnected,
    };
    let mut text = status.message().to_owned();
    // tonic says "transport error" and keeps what happened among the causes.
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    Status { code, text }
}

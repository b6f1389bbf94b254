//! The greeting for `wasmtime serve`: whatever the path, JSON in and JSON out.

use serde::{Deserialize, Serialize};
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::StreamError;

#[derive(Deserialize)]
struct Input {
    name: String,
}

#[derive(Serialize)]
struct Output {
    greeting: String,
}

struct Greeter;

impl Guest for Greeter {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let (status, body) = match serde_json::from_slice::<Input>(&read(&request)) {
            Ok(input) => {
                let greeting = format!("Hello, {}!", input.name.trim());
                let body = serde_json::to_vec(&Output { greeting });
                (200, body.expect("a text is JSON"))
            }
            Err(error) => (400, error.to_string().into_bytes()),
        };
        // The length, or the host would have to send the body in chunks.
        let headers = [
            ("content-type".to_owned(), b"application/json".to_vec()),
            (
                "content-length".to_owned(),
                body.len().to_string().into_bytes(),
            ),
        ];
        let response = OutgoingResponse::new(Fields::from_list(&headers).expect("good headers"));
        response.set_status_code(status).expect("a good status");
        let outgoing = response.body().expect("the first taker");
        ResponseOutparam::set(out, Ok(response));
        let stream = outgoing.write().expect("the first taker");
        stream.blocking_write_and_flush(&body).expect("a caller");
        drop(stream);
        OutgoingBody::finish(outgoing, None).expect("the length that was said");
    }
}

fn read(request: &IncomingRequest) -> Vec<u8> {
    let body = request.consume().expect("the first taker");
    let stream = body.stream().expect("the first taker");
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(chunk) => bytes.extend(chunk),
            Err(StreamError::Closed) => break,
            Err(error) => panic!("cannot read the body: {error}"),
        }
    }
    drop(stream);
    IncomingBody::finish(body);
    bytes
}

wasip2::http::proxy::export!(Greeter);

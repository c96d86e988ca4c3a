//! What the HTTP server does with unusual bytes, over sockets.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::rig::{Server, read_response, usual_options};
use vesta_frontends::{Budget, RestOptions};

const BODY: &str = "{\"instances\":[1.0]}";
const ANSWER: &str = "{\n    \"predictions\": [2.5\n    ]\n}";

fn post(version: &str, headers: &str) -> String {
    format!(
        "POST /v1/models/half_plus_two:predict HTTP/{version}\r\nHost: x\r\n{headers}\
         Content-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
}

#[test]
fn connections_are_kept_as_each_version_says() {
    let server = Server::usual();
    let text = server.exchange((post("1.1", "") + &post("1.1", "")).as_bytes());
    assert_eq!(text.matches(ANSWER).count(), 2, "{text}");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"), "{text}");
    assert!(text.contains("Date: "));

    for (request, kept) in [
        (post("1.1", "Connection: close\r\n"), false),
        (post("1.0", ""), false),
        (post("1.0", "Connection: keep-alive\r\n"), true),
        (post("1.1", ""), true),
    ] {
        let mut stream = server.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let response = read_response(&mut stream, true);
        assert_eq!(response.body, ANSWER.as_bytes());
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let ended = matches!(stream.read(&mut [0]), Ok(0));
        assert_eq!(ended, !kept, "{request}");
    }
}

#[test]
fn probes_are_answered_beside_the_api() {
    let mut server = Server::usual();
    let get = |server: &Server, target: &str| {
        server.exchange(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
    };
    let live = get(&server, "/healthz");
    assert!(live.starts_with("HTTP/1.1 200 OK\r\n") && live.ends_with("\r\n\r\nok"), "{live}");
    let ready = get(&server, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200 OK\r\n"), "{ready}");
    assert!(ready.ends_with("{\n    \"ready\": true\n}"), "{ready}");
    let head = server.exchange(b"HEAD /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(get(&server, "/healthz/").starts_with("HTTP/1.1 404 Not Found\r\n"));
    server.stop().unwrap();
}

#[test]
fn all_models_are_listed() {
    let mut server = Server::usual();
    let get = |target: &str| {
        let mut stream = server.connect();
        write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let answer = read_response(&mut stream, true);
        (answer.status, String::from_utf8(answer.body).unwrap())
    };
    let (status, text) = get("/v1/models");
    assert_eq!(status, 200);
    assert!(text.starts_with("{\n \"models\": [\n  {\n   \"name\": \""), "{text}");
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    let models = list["models"].as_array().unwrap();
    let names: Vec<_> = models.iter().map(|model| model["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted() && names.contains(&"versioned"), "{names:?}");
    for model in models {
        let (_, one) = get(&format!("/v1/models/{}", model["name"].as_str().unwrap()));
        let one: serde_json::Value = serde_json::from_str(&one).unwrap();
        assert_eq!(model["model_version_status"], one["model_version_status"]);
    }
    assert_eq!(get("/V1/MODELS"), (200, text));
    for target in ["/v1/models/", "/v1/models?x", "/v1/models/versions/1", "/v1/models/labels/a"] {
        assert_eq!(get(target).0, 400, "{target}");
    }
    server.stop().unwrap();
}

#[test]
fn a_version_beyond_64_bits_is_told() {
    let server = Server::usual();
    for (method, target) in [
        ("GET", "/v1/models/versioned/versions/9223372036854775808"),
        ("POST", "/v1/models/versioned/versions/99999999999999999999:predict"),
    ] {
        let mut stream = server.connect();
        write!(stream, "{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let answer = read_response(&mut stream, true);
        let error: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let text = error["error"].as_str().unwrap();
        assert!(answer.status == 400 && text.contains("is larger than any"), "{text}");
    }
}

#[test]
fn pipelined_requests_end_at_an_error_page() {
    let server = Server::usual();
    let get = "GET /v1/models/half_plus_two/versions/123 HTTP/1.1\r\nHost: x\r\n\r\n";
    let text =
        server.exchange(format!("{get}GET /nope HTTP/1.1\r\nHost: x\r\n\r\n{get}").as_bytes());
    assert_eq!(text.matches("\"AVAILABLE\"").count(), 1);
    assert!(text.ends_with("<H1>Not Found</H1>\n</BODY></HTML>\n"), "{text}");
    assert!(text.contains("Connection: close\r\n"), "{text}");
}

#[test]
fn unusual_heads_are_taken() {
    let server = Server::usual();
    let path = "/v1/models/half_plus_two/versions/123";
    let many: String = (0..2000).map(|i| format!("X-{i}: v\r\n")).collect();
    for request in [
        format!("GET {path} HTTP/1.1\nHost: x\n\n"),
        format!("GET {path} HTTP/1.1\r\n\r\n"),
        format!("GET http://x{path} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(1_000_000)),
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n{many}\r\n"),
        format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        ),
    ] {
        let mut stream = server.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let response = read_response(&mut stream, true);
        assert_eq!(response.status, 200, "{}", &request[..request.len().min(80)]);
        assert_eq!(response.body.len(), 156);
    }
}

#[test]
fn targets_and_methods_outside_the_api_get_pages() {
    let server = Server::usual();
    for (line, want) in [
        ("OPTIONS * HTTP/1.1", "404 Not Found"),
        ("GET //v1/models/half_plus_two HTTP/1.1", "404 Not Found"),
        ("GET /v1/models/half_plus_two?name[]=x HTTP/1.1", "400 Bad Request"),
        ("GET /monitoring/prometheus/metrics?name[]=x HTTP/1.1", "400 Bad Request"),
        ("OPTIONS /monitoring/prometheus/metrics HTTP/1.1", "404 Not Found"),
        ("TRACE /v1/models/half_plus_two HTTP/1.1", "501 Not Implemented"),
        ("FOO /v1/models/half_plus_two HTTP/1.1", "501 Not Implemented"),
    ] {
        let text = server.exchange(format!("{line}\r\nHost: x\r\n\r\n").as_bytes());
        assert!(
            text.starts_with(&format!("HTTP/1.1 {want}\r\nContent-Type: text/html\r\n")),
            "{text}"
        );
        assert!(text.contains(&format!("<TITLE>{want}</TITLE>")), "{line}: {text}");
    }
    let text = server.exchange(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 404 Not Found\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    let text = server.exchange(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
}

#[test]
fn bodies_come_in_every_shape() {
    let server = Server::usual();
    let chunked = "POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: x\r\n\
                   Transfer-Encoding: chunked\r\n\r\n5\r\n{\"ins\r\ne\r\ntances\":[1.0]}\r\n0\r\n\r\n";
    assert!(server.exchange(chunked.as_bytes()).ends_with(ANSWER));
    let deflate = post("1.1", "Content-Encoding: deflate\r\n");
    assert!(server.exchange(deflate.as_bytes()).ends_with(ANSWER), "other encodings are ignored");
    let not_gzip = post("1.1", "Content-Encoding: gzip\r\n");
    let empty = "{\n    \"error\": \"JSON Parse error: The document is empty\"\n}";
    assert!(server.exchange(not_gzip.as_bytes()).ends_with(empty));
    let none = "POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: x\r\n\r\n";
    assert!(server.exchange(none.as_bytes()).ends_with(empty));

    let mut stream = server.connect();
    let head = "POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: x\r\n\
                Expect: 100-continue\r\nContent-Length: 19\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(read_response(&mut stream, false).status, 100);
    stream.write_all(BODY.as_bytes()).unwrap();
    assert_eq!(read_response(&mut stream, true).body, ANSWER.as_bytes());
}

#[test]
fn preflights_are_answered_with_and_without_the_flag() {
    let preflight =
        "OPTIONS /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nOrigin: http://a.b\r\n\r\n";
    let plain = Server::usual();
    let text = plain.exchange(preflight.as_bytes());
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("Content-Type: text/html; charset=ISO-8859-1\r\n"), "{text}");
    assert!(!text.contains("Access-Control"), "{text}");
    let text = plain.exchange(preflight.replace("Origin: http://a.b\r\n", "").as_bytes());
    assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");

    let options = RestOptions { cors: true, ..usual_options() };
    let open = Server::start(options, Budget::new(1 << 30));
    let error = "GET /v1/models/nope HTTP/1.1\r\nHost: x\r\n\r\n";
    for request in [preflight, error] {
        let text = open.exchange(request.as_bytes());
        for header in [
            "Access-Control-Allow-Origin: *\r\n",
            "Access-Control-Allow-Methods: POST, GET\r\n",
            "Access-Control-Allow-Headers: Content-Type\r\n",
        ] {
            assert!(text.contains(header), "{text}");
        }
    }
}

#[test]
fn the_metrics_page_counts_requests() {
    let server = Server::usual();
    server.exchange(post("1.1", "Connection: close\r\n").as_bytes());
    server.exchange(b"GET /v1/models/nope HTTP/1.1\r\nHost: x\r\n\r\n");
    let metrics = "GET /monitoring/prometheus/metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    let text = server.exchange(metrics.as_bytes());
    assert!(text.contains("Content-Type: text/plain\r\n"), "{text}");
    for line in [
        "\n:tensorflow:serving:request_count{model_name=\"half_plus_two\",status=\"OK\"} 1\n",
        "\n:tensorflow:serving:request_count{model_name=\"nope\",status=\"NOT_FOUND\"} 1\n",
        "latency_count{model_name=\"half_plus_two\",API=\"predict\",entrypoint=\"REST\"} 1\n",
        "latency_count{model_name=\"half_plus_two\",API=\"Predict\",runtime=\"TF1\"} 1\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let text = server.exchange(metrics.replace("metrics ", "metrics?a=1 ").as_bytes());
    assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"), "{text}");
    assert!(text.ends_with(
        "Unexpected path: /monitoring/prometheus/metrics?a=1. Should be \
         /monitoring/prometheus/metrics"
    ));
}

#[test]
fn bodies_are_limited_one_by_one_and_together() {
    let options = RestOptions { body_bytes_max: 1000, ..usual_options() };
    let server = Server::start(options, Budget::new(1 << 20));
    let long = format!("{{\"instances\":[{}1.0]}}", "1.0,".repeat(400));
    let announced = format!(
        "POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{long}",
        long.len()
    );
    let chunked = format!(
        "POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\
         \r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
        long.len()
    );
    for request in [announced, chunked] {
        let text = server.exchange(request.as_bytes());
        assert!(text.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{text}");
        assert!(text.contains("the body is larger than the 1000 bytes"), "{text}");
    }

    let server = Server::start(usual_options(), Budget::new(500));
    let text = server.exchange(post("1.1", "").as_bytes());
    assert!(text.ends_with(ANSWER), "{text}");
    let body = format!("{{\"instances\":[{}1.0]}}", "1.0,".repeat(400));
    let request = format!(
        "POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let text = server.exchange(request.as_bytes());
    assert!(text.starts_with("HTTP/1.1 429 "), "{text}");
    assert!(server.gives_all_back());
}

#[test]
fn bodies_that_are_cut_off_or_badly_chunked_are_told_so() {
    let server = Server::usual();
    let head = "POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: x\r\n";
    let chunked = |body: &str| format!("{head}Transfer-Encoding: chunked\r\n\r\n{body}");
    let want = "{\n    \"error\": \"the body ended before it was whole, or its chunks are \
                malformed\"\n}";
    for request in [
        chunked("zz\r\n[]\r\n0\r\n\r\n"),
        chunked("-1\r\n[]\r\n0\r\n\r\n"),
        chunked("2\r\n[]]\r\n0\r\n\r\n"),
        chunked("ffffffffffffffffff\r\n[]\r\n0\r\n\r\n"),
        chunked("2\r\n[]\r\n"),
        format!("{head}Content-Length: 100\r\n\r\n{BODY}"),
    ] {
        let mut stream = server.connect();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{request}: {text}");
        assert!(text.contains("Connection: close\r\n"), "{text}");
        assert!(text.ends_with(want), "{text}");
    }
    assert!(server.gives_all_back());
}

#[test]
fn slow_heads_and_bodies_are_cut() {
    let options = RestOptions {
        head_timeout: Duration::from_millis(200),
        body_timeout: Duration::from_millis(200),
        ..usual_options()
    };
    let server = Server::start(options, Budget::new(1 << 20));
    let start = Instant::now();
    let mut stream = server.connect();
    stream.write_all(b"GET /v1/mod").unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    let mut stream = server.connect();
    stream.write_all(post("1.1", "").strip_suffix("]}").unwrap().as_bytes()).unwrap();
    let response = read_response(&mut stream, true);
    assert_eq!(response.status, 504);
    assert!(start.elapsed() < Duration::from_secs(9));
}

#[test]
fn idle_connections_are_closed() {
    let options = RestOptions { head_timeout: Duration::from_millis(300), ..usual_options() };
    let server = Server::start(options, Budget::new(1 << 20));
    let mut never_used = server.connect();
    let mut stream = server.connect();
    let start = Instant::now();
    for _ in 0..3 {
        // Shorter pauses do no harm.
        std::thread::sleep(Duration::from_millis(150));
        stream.write_all(post("1.1", "").as_bytes()).unwrap();
        assert_eq!(read_response(&mut stream, true).body, ANSWER.as_bytes());
    }
    let used = Instant::now();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "no word of it");
    let idle = used.elapsed();
    assert!(idle > Duration::from_millis(200) && idle < Duration::from_secs(5), "{idle:?}");
    assert!(start.elapsed() > Duration::from_millis(650));
    assert_eq!(never_used.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_large_request_goes_through() {
    let server = Server::usual();
    let body = format!("{{\"instances\":[{}2.5]}}", "1.0,".repeat(299_999));
    let head = format!(
        "POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = server.connect();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let response = read_response(&mut stream, true);
    assert_eq!(response.status, 200);
    assert!(response.body.ends_with(b"2.5, 3.25\n    ]\n}"));
    assert_eq!(response.body.len(), 25 + 299_999 * 5 + 9);
    assert!(server.gives_all_back());
}

#[test]
fn stopping_ends_idle_connections_and_the_server() {
    let mut server = Server::usual();
    let mut idle = server.connect();
    idle.write_all(post("1.1", "").as_bytes()).unwrap();
    read_response(&mut idle, true);
    let start = Instant::now();
    server.stop().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(matches!(idle.read(&mut [0]), Ok(0) | Err(_)));
    assert!(std::net::TcpStream::connect(server.address).is_err());
}

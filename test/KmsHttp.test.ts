/**
 * An application that runs on `NodeHttpServer` runs unchanged on `KmsHttp`: the same tests, against both. What follows
 * is what only `KmsHttp` promises, and what it says when it cannot start.
 */
import { assert, describe, it } from "@effect/vitest"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import type * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import {
  ByteSize,
  Config,
  ConfigProvider,
  Data,
  Deferred,
  Effect,
  Exit,
  Fiber,
  FileSystem,
  Layer,
  Logger,
  Option,
  References,
  Schema,
  Scope,
  Stream,
  Tracer
} from "effect"
import {
  FetchHttpClient,
  HttpBody,
  HttpClient,
  HttpEffect,
  HttpIncomingMessage,
  HttpMiddleware,
  HttpRouter,
  HttpServer,
  HttpServerError,
  HttpServerRequest,
  HttpServerRespondable,
  HttpServerResponse,
  HttpStaticServer,
  Multipart,
  UrlParams
} from "effect/http"
import { HttpApi, HttpApiBuilder, HttpApiClient, HttpApiEndpoint, HttpApiGroup } from "effect/http-api"
import { NetAddress } from "effect/net"
import { Rpc, RpcClient, RpcGroup, RpcSerialization, RpcServer } from "effect/rpc"
import { TestClock } from "effect/testing"
import { Kms, KmsHttp } from "effect-kms"
import { createHash } from "node:crypto"
import { createServer } from "node:http"
import {
  type ClientHttp2Session,
  connect as connectHttp2,
  constants,
  createSecureServer as createSecureHttp2Server,
  createServer as createHttp2Server
} from "node:http2"
import { createServer as createSecureServer, request } from "node:https"
import { closeSync, openSync } from "node:fs"
import { type AddressInfo, createServer as createNetServer, type Server as NetServer } from "node:net"
import { type Duplex, Readable } from "node:stream"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import WebSocket from "ws"
import { dial, type Listener, listeners, port, serving } from "./support/app.ts"
import { cert, key } from "./support/certificate.ts"
import * as Program from "./support/program.ts"
import * as Peers from "./support/peers.ts"
import * as Ways from "./support/ways.ts"

class OutOfStock extends Data.TaggedError("OutOfStock")<{ readonly item: string }> {
  [HttpServerRespondable.symbol]() {
    return HttpServerResponse.json({ out: this.item }, { status: 409 }).pipe(Effect.orDie)
  }
}

class Api extends HttpApi.make("api").add(
  HttpApiGroup.make("items", { topLevel: true }).add(
    HttpApiEndpoint.get("item", "/items/:id", {
      params: { id: Schema.Int },
      query: { full: Schema.optional(Schema.String) },
      success: Schema.Struct({ id: Schema.Int, full: Schema.Boolean })
    }),
    HttpApiEndpoint.post("create", "/items", {
      payload: Schema.Struct({ name: Schema.NonEmptyString }),
      success: Schema.Struct({ created: Schema.String })
    })
  )
) {}

class Rpcs extends RpcGroup.make(
  Rpc.make("Double", { payload: { n: Schema.Int }, success: Schema.Int }),
  Rpc.make("Refuse", { error: Schema.String }),
  Rpc.make("Count", { payload: { to: Schema.Int }, success: Schema.Int, stream: true })
) {}

const RpcHandlers = Rpcs.toLayer({
  Double: ({ n }) => Effect.succeed(n * 2),
  Refuse: () => Effect.fail("no"),
  Count: ({ to }) => Stream.range(1, to)
})

describe.each(listeners)("an application on $name", ({ http }) => {
  describe("HttpRouter", () => {
    it.effect("routes by method and path, with parameters, wildcards and search parameters", () =>
      Effect.gen(function* () {
        const client = yield* HttpClient.HttpClient
        assert.deepStrictEqual(yield* (yield* client.get("/users/42/posts/7")).json, { user: "42", post: "7" })
        assert.deepStrictEqual(yield* (yield* client.get("/files/a/b%20c.txt")).json, { "*": "a/b c.txt" })
        assert.deepStrictEqual(yield* (yield* client.get("/search?tag=a&tag=b&q=%C3%A9")).json, {
          tag: ["a", "b"],
          q: "é"
        })
        assert.strictEqual(yield* (yield* client.post("/search")).text, "posted")
      }).pipe(
        Effect.provide(
          serving(
            http,
            HttpRouter.addAll([
              HttpRouter.route("GET", "/users/:user/posts/:post", Effect.flatMap(HttpRouter.params, json)),
              HttpRouter.route("GET", "/files/*", Effect.flatMap(HttpRouter.params, json)),
              HttpRouter.route("GET", "/search", Effect.flatMap(HttpServerRequest.ParsedSearchParams, json)),
              HttpRouter.route("POST", "/search", HttpServerResponse.text("posted"))
            ])
          )
        )
      )
    )

    it.effect("answers 404 where there is no route", () =>
      Effect.gen(function* () {
        const response = yield* HttpClient.get("/nowhere")
        assert.strictEqual(response.status, 404)
        assert.strictEqual((yield* HttpClient.post("/")).status, 404)
      }).pipe(Effect.provide(serving(http, HttpRouter.add("GET", "/", HttpServerResponse.text("home")))))
    )

    it.effect("answers HEAD on a GET route with its headers and no body", () =>
      Effect.gen(function* () {
        const peer = yield* dial(yield* port)
        yield* peer.write("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        const received = yield* peer.closed
        assert.match(received, /^HTTP\/1\.1 200 OK\r\n/)
        assert.match(received, /\r\ncontent-length: 4\r\n/i)
        assert.match(received, /\r\nx-more: yes\r\n/i)
        assert.isTrue(received.endsWith("\r\n\r\n"))
      }).pipe(
        Effect.provide(
          serving(http, HttpRouter.add("GET", "/", HttpServerResponse.text("home", { headers: { "x-more": "yes" } })))
        )
      )
    )

    it.effect("runs the middleware of a route and of all routes", () =>
      Effect.gen(function* () {
        const inner = yield* HttpClient.get("/inner")
        assert.deepStrictEqual([inner.headers["x-route"], inner.headers["x-all"]], ["1", "1"])
        const outer = yield* HttpClient.get("/outer")
        assert.deepStrictEqual([outer.headers["x-route"], outer.headers["x-all"]], [undefined, "1"])
      }).pipe(
        Effect.provide(
          serving(
            http,
            Layer.mergeAll(
              HttpRouter.add("GET", "/inner", HttpServerResponse.text("in")).pipe(
                Layer.provide(HttpRouter.middleware(Effect.map(HttpServerResponse.setHeader("x-route", "1"))).layer)
              ),
              HttpRouter.add("GET", "/outer", HttpServerResponse.text("out")),
              HttpRouter.middleware(Effect.map(HttpServerResponse.setHeader("x-all", "1")), { global: true })
            )
          )
        )
      )
    )

    it.effect("answers a CORS preflight, and marks what it answers", () =>
      Effect.gen(function* () {
        const origin = { origin: "https://example.com" }
        const preflight = yield* HttpClient.options("/", {
          headers: { ...origin, "access-control-request-method": "GET" }
        })
        assert.strictEqual(preflight.status, 204)
        assert.strictEqual(preflight.headers["access-control-allow-methods"], "GET")
        const answer = yield* HttpClient.get("/", { headers: origin })
        assert.strictEqual(answer.headers["access-control-allow-origin"], "https://example.com")
        assert.strictEqual(yield* answer.text, "home")
      }).pipe(
        Effect.provide(
          serving(
            http,
            Layer.mergeAll(
              HttpRouter.add("GET", "/", HttpServerResponse.text("home")),
              HttpRouter.cors({ allowedOrigins: ["https://example.com"], allowedMethods: ["GET"] })
            )
          )
        )
      )
    )

    it.effect("turns an error into the response it stands for, and any other error or defect into 500", () =>
      Effect.gen(function* () {
        const stock = yield* HttpClient.get("/stock")
        assert.deepStrictEqual([stock.status, yield* stock.json], [409, { out: "tea" }])
        for (const path of ["/fail", "/die", "/throw"]) assert.strictEqual((yield* HttpClient.get(path)).status, 500)
        const refused = yield* HttpClient.get("/refused")
        assert.deepStrictEqual([refused.status, yield* refused.text], [403, "no"])
        // The listener has taken no harm.
        assert.strictEqual((yield* HttpClient.get("/stock")).status, 409)
      }).pipe(
        Effect.provide(
          serving(
            http,
            HttpRouter.addAll([
              HttpRouter.route("GET", "/stock", Effect.fail(new OutOfStock({ item: "tea" }))),
              HttpRouter.route("GET", "/fail", Effect.fail("broken")),
              HttpRouter.route("GET", "/die", Effect.die(new Error("broken"))),
              HttpRouter.route("GET", "/throw", () => {
                throw new Error("broken")
              }),
              HttpRouter.route("GET", "/refused", Effect.die(HttpServerResponse.text("no", { status: 403 })))
            ])
          )
        )
      )
    )

    it.effect("answers 400 to what is not HTTP", () =>
      Effect.gen(function* () {
        const peer = yield* dial(yield* port)
        yield* peer.write("hello there\r\n\r\n")
        assert.match(yield* peer.closed, /^HTTP\/1\.1 400 Bad Request\r\n/)
      }).pipe(Effect.provide(serving(http, HttpRouter.add("GET", "/", HttpServerResponse.text("home")))))
    )

    it.effect("breaks off a response whose stream fails after it has begun", () =>
      Effect.gen(function* () {
        const seen = yield* Deferred.make<void>()
        const broken = Stream.drain(Stream.fromEffect(Effect.andThen(Deferred.await(seen), Effect.die("broken"))))
        yield* Effect.gen(function* () {
          const peer = yield* dial(yield* port)
          yield* peer.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
          yield* peer.until(/^HTTP\/1\.1 200 OK\r\n[^]*begun/)
          yield* Deferred.succeed(seen, undefined)
          assert.isFalse((yield* peer.closed).endsWith("0\r\n\r\n"))
        }).pipe(
          Effect.provide(
            serving(http, HttpRouter.add("GET", "/", HttpServerResponse.stream(Stream.concat(bytes("begun"), broken))))
          )
        )
      })
    )
  })

  describe("HttpApi", () => {
    it.effect("is served to a client made from the same definition", () =>
      Effect.gen(function* () {
        const client = yield* HttpApiClient.make(Api)
        assert.deepStrictEqual(yield* client.item({ params: { id: 3 }, query: { full: "1" } }), { id: 3, full: true })
        assert.deepStrictEqual(yield* client.create({ payload: { name: "tea" } }), { created: "tea" })
        const wrong = yield* HttpClient.get("/items/three")
        assert.strictEqual(wrong.status, 400)
      }).pipe(
        Effect.provide(
          serving(
            http,
            HttpApiBuilder.layer(Api).pipe(
              Layer.provide(
                HttpApiBuilder.group(Api, "items", (handlers) =>
                  handlers
                    .handle("item", ({ params, query }) =>
                      Effect.succeed({ id: params.id, full: query.full !== undefined })
                    )
                    .handle("create", ({ payload }) => Effect.succeed({ created: payload.name }))
                )
              )
            )
          )
        )
      )
    )
  })

  describe("RPC", () => {
    const calls = Effect.gen(function* () {
      const client = yield* RpcClient.make(Rpcs)
      assert.strictEqual(yield* client.Double({ n: 21 }), 42)
      assert.strictEqual(yield* Effect.flip(client.Refuse()), "no")
      assert.deepStrictEqual(yield* Stream.runCollect(client.Count({ to: 3 })), [1, 2, 3])
    })

    const rpc = (protocol: "http" | "websocket") =>
      serving(
        http,
        RpcServer.layerHttp({ group: Rpcs, path: "/rpc", protocol }).pipe(
          Layer.provide(RpcHandlers),
          Layer.provide(RpcSerialization.layerNdjson)
        )
      )

    it.effect("answers calls and streams over HTTP", () =>
      Effect.gen(function* () {
        const protocol = RpcClient.layerProtocolHttp({ url: `http://127.0.0.1:${yield* port}/rpc` }).pipe(
          Layer.provide(FetchHttpClient.layer),
          Layer.provide(RpcSerialization.layerNdjson)
        )
        yield* calls.pipe(Effect.provide(protocol), Effect.scoped)
      }).pipe(Effect.provide(rpc("http")))
    )

    it.effect("answers calls and streams over a WebSocket", () =>
      Effect.gen(function* () {
        const protocol = RpcClient.layerProtocolSocket().pipe(
          Layer.provide(NodeSocket.layerWebSocket(`ws://127.0.0.1:${yield* port}/rpc`)),
          Layer.provide(RpcSerialization.layerNdjson)
        )
        yield* calls.pipe(Effect.provide(protocol), Effect.scoped)
      }).pipe(Effect.provide(rpc("websocket")))
    )
  })

  describe("HttpMiddleware", () => {
    it.effect("logger tells what was sent", () =>
      Effect.gen(function* () {
        const lines: Array<Record<string, unknown>> = []
        const log = Logger.make((options) => {
          lines.push({ ...options.fiber.getRef(References.CurrentLogAnnotations) })
        })
        const app = HttpServer.serve(
          Effect.succeed(HttpServerResponse.text("gone", { status: 410 })),
          HttpMiddleware.logger
        ).pipe(Layer.provideMerge(http.layerTest), Layer.provideMerge(Logger.layer([log])))
        yield* Effect.provide(HttpClient.get("/old?secret=1"), app)
        assert.deepInclude(lines, { "http.method": "GET", "http.url": "/old", "http.status": 410 })
      })
    )

    it.effect("of one's own sees the request and the outcome, and may answer by itself", () =>
      Effect.gen(function* () {
        const seen: Array<string> = []
        const own = HttpMiddleware.make((app) =>
          Effect.gen(function* () {
            const request = yield* HttpServerRequest.HttpServerRequest
            if (request.headers["x-token"] !== "t") return HttpServerResponse.text("who?", { status: 401 })
            const response = yield* app
            seen.push(`${request.method} ${request.url} ${response.status}`)
            return response
          })
        )
        yield* Effect.gen(function* () {
          const stranger = yield* HttpClient.get("/a")
          assert.deepStrictEqual([stranger.status, yield* stranger.text], [401, "who?"])
          const friend = yield* HttpClient.get("/b", { headers: { "x-token": "t" } })
          assert.deepStrictEqual([friend.status, yield* friend.text], [200, "in"])
          assert.deepStrictEqual(seen, ["GET /b 200"])
        }).pipe(
          Effect.provide(
            HttpServer.serve(Effect.succeed(HttpServerResponse.text("in")), own).pipe(
              Layer.provideMerge(http.layerTest)
            )
          )
        )
      })
    )

    it.effect("tracer opens a span that continues the client's", () =>
      Effect.gen(function* () {
        const spans: Array<Tracer.NativeSpan> = []
        const ended = yield* Deferred.make<void>()
        const tracer = Tracer.make({
          span(options) {
            const span = new Tracer.NativeSpan(options)
            spans.push(span)
            const end = span.end.bind(span)
            span.end = (time, exit) => {
              end(time, exit)
              Deferred.doneUnsafe(ended, Exit.void)
            }
            return span
          }
        })
        const traceId = "0af7651916cd43dd8448eb211c80319c"
        const app = serving(http, HttpRouter.add("GET", "/traced/:id", HttpServerResponse.text("ok"))).pipe(
          Layer.provideMerge(Layer.succeed(Tracer.Tracer, tracer))
        )
        yield* Effect.gen(function* () {
          const peer = yield* dial(yield* port)
          yield* peer.write(
            `GET /traced/1 HTTP/1.1\r\nHost: a\r\nTraceparent: 00-${traceId}-b7ad6b7169203331-01\r\n\r\n`
          )
          yield* peer.until(/ok$/)
          yield* Deferred.await(ended)
        }).pipe(Effect.provide(app))
        const span = spans.find((span) => span.kind === "server")!
        assert.strictEqual(span.traceId, traceId)
        assert.strictEqual(span.attributes.get("http.response.status_code"), 200)
        assert.strictEqual(span.attributes.get("http.route"), "/traced/:id")
        assert.strictEqual(span.status._tag, "Ended")
      })
    )

    it.effect("pre-response handlers change what is sent, of errors too", () =>
      Effect.gen(function* () {
        const fine = yield* HttpClient.get("/fine")
        assert.deepStrictEqual([fine.headers["x-before"], yield* fine.text], ["a, b", "fine"])
        const failed = yield* HttpClient.get("/failed")
        assert.deepStrictEqual([failed.status, failed.headers["x-before"]], [500, "a"])
      }).pipe(
        Effect.provide(
          serving(
            http,
            HttpRouter.addAll([
              HttpRouter.route(
                "GET",
                "/fine",
                Effect.andThen(before("a"), HttpEffect.withPreResponseHandler(okay, append("b")))
              ),
              HttpRouter.route("GET", "/failed", Effect.andThen(before("a"), Effect.fail("broken")))
            ])
          )
        )
      )
    )
  })

  describe("request bodies", () => {
    it.effect("are read as JSON, as a form and as text, and 400 says which cannot be", () =>
      Effect.gen(function* () {
        const post = (path: string, body: HttpBody.HttpBody) =>
          Effect.map(HttpClient.post(path, { body }), (response) => [response.status, response.text] as const)
        const item = yield* post("/json", HttpBody.jsonUnsafe({ item: "tea", count: 2 }))
        assert.deepStrictEqual([item[0], yield* item[1]], [200, "2 x tea"])
        assert.strictEqual((yield* post("/json", HttpBody.jsonUnsafe({ item: "tea", count: "many" })))[0], 400)
        assert.strictEqual((yield* post("/json", HttpBody.text("{", "application/json")))[0], 400)
        const form = yield* post("/form", HttpBody.urlParams(UrlParams.fromInput({ item: "grüner Tee", count: "3" })))
        assert.deepStrictEqual([form[0], yield* form[1]], [200, "3 x grüner Tee"])
        const text = yield* post("/text", HttpBody.text("plain"))
        assert.deepStrictEqual([text[0], yield* text[1]], [200, "plain"])
      }).pipe(
        Effect.provide(
          serving(
            http,
            HttpRouter.addAll([
              HttpRouter.route(
                "POST",
                "/json",
                Effect.map(
                  HttpServerRequest.schemaBodyJson(Schema.Struct({ item: Schema.String, count: Schema.Int })),
                  ({ count, item }) => HttpServerResponse.text(`${count} x ${item}`)
                )
              ),
              HttpRouter.route(
                "POST",
                "/form",
                Effect.map(
                  HttpServerRequest.schemaBodyUrlParams(Schema.Struct({ item: Schema.String, count: Schema.String })),
                  ({ count, item }) => HttpServerResponse.text(`${count} x ${item}`)
                )
              ),
              HttpRouter.route("POST", "/text", (request) => Effect.map(request.text, HttpServerResponse.text))
            ])
          )
        )
      )
    )

    it.effect("multipart ones are kept in files for as long as the request lasts", () =>
      Effect.gen(function* () {
        const ended = yield* Deferred.make<void>()
        const handler = Effect.gen(function* () {
          // The first finalizer is the last to run.
          yield* Effect.addFinalizer(() => Deferred.succeed(ended, undefined))
          const { title, upload } = yield* HttpServerRequest.schemaBodyMultipart(
            Schema.Struct({ title: Schema.String, upload: Multipart.SingleFileSchema })
          )
          const content = yield* (yield* FileSystem.FileSystem).readFile(upload.path)
          return yield* json({ title, name: upload.name, hash: hash(content), path: upload.path })
        })
        yield* Effect.gen(function* () {
          const fs = yield* FileSystem.FileSystem
          const form = new FormData()
          form.append("title", "notes")
          form.append("upload", new Blob([large]), "notes.bin")
          const answer = yield* (yield* HttpClient.post("/", { body: HttpBody.formData(form) })).json
          assert.deepInclude(answer, { title: "notes", name: "notes.bin", hash: hash(large) })
          yield* Deferred.await(ended)
          assert.isFalse(yield* fs.exists((answer as { readonly path: string }).path))
        }).pipe(Effect.provide(serving(http, HttpRouter.add("POST", "/", handler))))
      })
    )

    it.effect("multipart ones are read as they come", () =>
      Effect.gen(function* () {
        const form = new FormData()
        form.append("title", "notes")
        form.append("upload", new Blob([large]), "notes.bin")
        const answer = yield* (yield* HttpClient.post("/", { body: HttpBody.formData(form) })).json
        assert.deepStrictEqual(answer, [
          ["title", "notes"],
          ["upload", hash(large)]
        ])
      }).pipe(
        Effect.provide(
          serving(
            http,
            HttpRouter.add("POST", "/", (request) =>
              request.multipartStream.pipe(
                Stream.mapEffect((part) =>
                  Multipart.isField(part)
                    ? Effect.succeed([part.key, part.value])
                    : Effect.map(part.contentEffect, (content) => [part.key, hash(content)])
                ),
                Stream.runCollect,
                Effect.flatMap(json)
              )
            )
          )
        )
      )
    )

    it.effect("past MaxBodySize are refused with 413", () =>
      Effect.gen(function* () {
        const status = (body: HttpBody.HttpBody) =>
          Effect.map(HttpClient.post("/", { body }), (response) => response.status)
        assert.strictEqual(yield* status(HttpBody.text("x".repeat(1000))), 200)
        assert.strictEqual(yield* status(HttpBody.text("x".repeat(1001))), 413)
      }).pipe(
        Effect.provide(
          serving(
            http,
            HttpRouter.add("POST", "/", (request) =>
              Effect.map(request.text, HttpServerResponse.text).pipe(
                Effect.provideService(HttpIncomingMessage.MaxBodySize, ByteSize.bytes(1000))
              )
            )
          )
        )
      )
    )
  })

  describe("Expect: 100-continue", () => {
    const app = serving(
      http,
      HttpRouter.addAll([
        HttpRouter.route("POST", "/read", (request) => Effect.map(request.text, HttpServerResponse.text)),
        HttpRouter.route("POST", "/refuse", HttpServerResponse.text("no", { status: 417 }))
      ])
    )
    const head = (path: string) =>
      `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n`

    it.effect("is answered with 100 once the handler reads the body", () =>
      Effect.gen(function* () {
        const peer = yield* dial(yield* port)
        yield* peer.write(head("/read"))
        yield* peer.until(/^HTTP\/1\.1 100 Continue\r\n\r\n$/)
        yield* peer.write("hello")
        yield* peer.until(/\r\n\r\nHTTP\/1\.1 200 OK\r\n[^]*\r\n\r\nhello$/)
      }).pipe(Effect.provide(app))
    )

    it.effect("is answered with the final response alone, and the end, where the body is not wanted", () =>
      Effect.gen(function* () {
        const peer = yield* dial(yield* port)
        yield* peer.write(head("/refuse"))
        const received = yield* peer.closed
        assert.match(received, /^HTTP\/1\.1 417 .*\r\n[^]*\r\n\r\nno$/)
        assert.match(received, /\r\nconnection: close\r\n/i)
      }).pipe(Effect.provide(app))
    )
  })

  describe("responses", () => {
    it.effect("carry cookies, a redirect, nothing at all", () =>
      Effect.gen(function* () {
        const peer = yield* dial(yield* port)
        yield* peer.write("GET /cookies HTTP/1.1\r\nHost: a\r\nCookie: seen=1; b=%C3%A9\r\n\r\n")
        const [cookies] = yield* peer.until(/[^]*\r\n\r\n.*seen.*$/)
        assert.match(cookies, /\r\nset-cookie: id=7; Path=\/; HttpOnly\r\n/i)
        assert.match(cookies, /\r\nset-cookie: theme=dark\r\n/i)
        assert.isTrue(cookies.endsWith(Buffer.from(JSON.stringify({ seen: "1", b: "é" })).toString("latin1")))
        yield* peer.write("GET /moved HTTP/1.1\r\nHost: a\r\n\r\n")
        yield* peer.until(/HTTP\/1\.1 302 Found\r\n(?:.+\r\n)*location: \/new\r\n/i)
        yield* peer.write("GET /empty HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert.match(yield* peer.closed, /HTTP\/1\.1 204 No Content\r\n(?:(?!content-length).+\r\n)*\r\n$/i)
      }).pipe(
        Effect.provide(
          serving(
            http,
            HttpRouter.addAll([
              HttpRouter.route("GET", "/cookies", (request) =>
                json(request.cookies).pipe(
                  Effect.flatMap(HttpServerResponse.setCookie("id", "7", { httpOnly: true, path: "/" })),
                  Effect.flatMap(HttpServerResponse.setCookie("theme", "dark"))
                )
              ),
              HttpRouter.route("GET", "/moved", HttpServerResponse.redirect("/new")),
              HttpRouter.route("GET", "/empty", HttpServerResponse.empty())
            ])
          )
        )
      )
    )

    it.effect("have a Node stream for a body, or a form", () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* (yield* HttpClient.get("/raw")).text, "one two three")
        const form = yield* HttpClient.get("/form")
        const content = yield* form.arrayBuffer
        const parsed = yield* Effect.promise(() => new Response(content, { headers: form.headers }).formData())
        assert.strictEqual(parsed.get("title"), "notes")
      }).pipe(
        Effect.provide(
          serving(
            http,
            HttpRouter.addAll([
              HttpRouter.route(
                "GET",
                "/raw",
                Effect.sync(() => HttpServerResponse.raw(Readable.from(["one ", "two ", "three"])))
              ),
              HttpRouter.route(
                "GET",
                "/form",
                Effect.sync(() => {
                  const form = new FormData()
                  form.append("title", "notes")
                  return HttpServerResponse.formData(form)
                })
              )
            ])
          )
        )
      )
    )

    it.live("stop producing while the client does not read, and arrive whole once it does", () =>
      Effect.gen(function* () {
        const total = 400
        let produced = 0
        const chunk = new Uint8Array(64 * 1024).fill(120)
        const body = Stream.range(1, total).pipe(
          Stream.rechunk(1),
          Stream.map(() => {
            produced++
            return chunk
          })
        )
        yield* Effect.gen(function* () {
          const peer = yield* dial(yield* port)
          peer.socket.pause()
          yield* peer.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
          // Nothing tells that nothing happens: it is quiet when several looks in a row see the same.
          const seen: Array<number> = []
          while (seen.length < 6 || seen.slice(-6).some((count) => count === 0 || count !== produced)) {
            seen.push(produced)
            yield* Effect.sleep(10)
          }
          assert.isBelow(produced, total)
          peer.socket.resume()
          const received = yield* peer.closed
          assert.strictEqual(produced, total)
          assert.strictEqual(received.length - received.indexOf("\r\n\r\n") - 4, total * chunk.length)
        }).pipe(
          Effect.provide(
            serving(
              http,
              HttpRouter.add("GET", "/", HttpServerResponse.stream(body, { contentLength: total * chunk.length }))
            )
          )
        )
      })
    )

    it.effect("are files: one by one, and a whole directory with types, ranges and ETags", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const root = yield* fs.makeTempDirectoryScoped()
        yield* fs.writeFileString(`${root}/index.html`, "<p>home</p>")
        yield* fs.writeFile(`${root}/large.bin`, large)
        yield* Effect.gen(function* () {
          const home = yield* HttpClient.get("/")
          assert.match(home.headers["content-type"]!, /^text\/html/)
          assert.strictEqual(yield* home.text, "<p>home</p>")
          const one = yield* HttpClient.get("/one")
          assert.strictEqual(hash(new Uint8Array(yield* one.arrayBuffer)), hash(large))
          const part = yield* HttpClient.get("/large.bin", { headers: { range: "bytes=10-19" } })
          assert.deepStrictEqual([part.status, (yield* part.arrayBuffer).byteLength], [206, 10])
          const same = yield* HttpClient.get("/large.bin", { headers: { "if-none-match": part.headers["etag"]! } })
          assert.strictEqual(same.status, 304)
          assert.strictEqual((yield* HttpClient.get("/../secret")).status, 404)
        }).pipe(
          Effect.provide(
            serving(
              http,
              Layer.mergeAll(
                HttpRouter.add("GET", "/one", HttpServerResponse.file(`${root}/large.bin`)),
                HttpStaticServer.layer({ root })
              )
            )
          )
        )
      }).pipe(Effect.provide(NodeFileSystem.layer))
    )
  })

  describe("a client that goes away", () => {
    it.effect("interrupts the handler with ClientAbort, which is logged as 499", () =>
      Effect.gen(function* () {
        const started = yield* Deferred.make<void>()
        const ended = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
        const logged = yield* Deferred.make<unknown>()
        const log = Logger.make(({ fiber }) => {
          const status = fiber.getRef(References.CurrentLogAnnotations)["http.status"]
          if (status !== undefined) Deferred.doneUnsafe(logged, Exit.succeed(status))
        })
        const handler = Effect.andThen(Deferred.succeed(started, undefined), Effect.never).pipe(
          Effect.onExit((exit) => Deferred.succeed(ended, exit))
        )
        const app = HttpRouter.serve(HttpRouter.add("GET", "/", handler), { disableListenLog: true }).pipe(
          Layer.provideMerge(http.layerTest),
          Layer.provideMerge(Logger.layer([log]))
        )
        yield* Effect.gen(function* () {
          const peer = yield* dial(yield* port)
          yield* peer.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
          yield* Deferred.await(started)
          peer.socket.destroy()
          const exit = yield* Deferred.await(ended)
          assert.isTrue(
            Exit.isFailure(exit) &&
              exit.cause.reasons.some((reason) => reason.annotations.has(HttpServerError.ClientAbort.key))
          )
          assert.strictEqual(yield* Deferred.await(logged), 499)
        }).pipe(Effect.provide(app))
      })
    )

    it.effect("in the middle of its upload fails the read of the body", () =>
      Effect.gen(function* () {
        const ended = yield* Deferred.make<Exit.Exit<string, unknown>>()
        const started = yield* Deferred.make<void>()
        yield* Effect.gen(function* () {
          const peer = yield* dial(yield* port)
          yield* peer.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
          yield* Deferred.await(started)
          peer.socket.destroy()
          assert.isTrue(Exit.isFailure(yield* Deferred.await(ended)))
        }).pipe(
          Effect.provide(
            serving(
              http,
              HttpRouter.add("POST", "/", (request) =>
                Effect.andThen(Deferred.succeed(started, undefined), request.text).pipe(
                  Effect.onExit((exit) => Deferred.succeed(ended, exit)),
                  Effect.map(HttpServerResponse.text)
                )
              )
            )
          )
        )
      })
    )
  })

  describe("upgrades", () => {
    const sockets = (websocket?: NodeHttpServer.Options["websocket"]) =>
      HttpRouter.serve(
        HttpRouter.addAll([
          HttpRouter.route(
            "GET",
            "/echo",
            echo((request) => request.upgrade)
          ),
          HttpRouter.route(
            "GET",
            "/raw",
            echo((request) => request.upgradeWith({ headers: { "x-echo": "yes" } }))
          ),
          HttpRouter.route("GET", "/none", HttpServerResponse.text("no", { status: 426 }))
        ]),
        { disableListenLog: true, disableLogger: true }
      ).pipe(Layer.provideMerge(http.layer(createServer, { port: 0, host: "127.0.0.1", websocket })))

    it.live("a WebSocket talks both ways, text and binary, until it says goodbye", () =>
      Effect.gen(function* () {
        const ws = yield* webSocket(`ws://127.0.0.1:${yield* port}/echo`)
        assert.strictEqual(ws.socket.extensions, "")
        ws.socket.send("hello")
        assert.strictEqual(String(yield* ws.message), "hello")
        ws.socket.send(large)
        assert.strictEqual(hash(yield* ws.message), hash(large))
        ws.socket.close(1000)
        assert.strictEqual((yield* ws.closed).code, 1000)
      }).pipe(Effect.provide(sockets()))
    )

    it.live("the websocket options reach ws: compression, and the greatest message", () =>
      Effect.gen(function* () {
        const ws = yield* webSocket(`ws://127.0.0.1:${yield* port}/echo`)
        assert.match(ws.socket.extensions, /^permessage-deflate/)
        ws.socket.send("x".repeat(100))
        assert.strictEqual(String(yield* ws.message), "x".repeat(100))
        ws.socket.send("x".repeat(101))
        assert.strictEqual((yield* ws.closed).code, 1009)
      }).pipe(Effect.provide(sockets({ perMessageDeflate: true, maxPayload: 100 })))
    )

    it.live("another protocol gets 101 with the headers given, and the connection with what was sent ahead", () =>
      Effect.gen(function* () {
        const peer = yield* dial(yield* port)
        yield* peer.write("GET /raw HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\nahead ")
        yield* peer.until(/^HTTP\/1\.1 101 Switching Protocols\r\n(?=[^]*upgrade: shout\r\n)[^]*x-echo: yes\r\n/i)
        yield* peer.until(/\r\n\r\nahead $/)
        yield* peer.write("later")
        yield* peer.until(/\r\n\r\nahead later$/)
        peer.socket.end()
        assert.isTrue((yield* peer.closed).endsWith("ahead later"))
      }).pipe(Effect.provide(sockets()))
    )

    it.live("a handler that does not upgrade answers as usual", () =>
      Effect.gen(function* () {
        const peer = yield* dial(yield* port)
        yield* peer.write("GET /none HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n")
        assert.match(yield* peer.closed, /^HTTP\/1\.1 426 [^]*\r\n\r\nno$/)
      }).pipe(Effect.provide(sockets()))
    )

    it.live("a plain request cannot be upgraded", () =>
      Effect.gen(function* () {
        const peer = yield* dial(yield* port)
        yield* peer.write("GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert.match(yield* peer.closed, /^HTTP\/1\.1 400 /)
      }).pipe(Effect.provide(sockets()))
    )
  })

  describe("serving", () => {
    const hello = HttpServerResponse.text("hello")

    it.effect("HttpServer.serveEffect serves for as long as its scope is open", () =>
      Effect.gen(function* () {
        const to = yield* Effect.gen(function* () {
          yield* HttpServer.serveEffect(Effect.succeed(hello))
          assert.strictEqual(yield* (yield* HttpClient.get("/")).text, "hello")
          return yield* port
        }).pipe(Effect.provide(http.layerTest), Effect.scoped)
        assert.isTrue(Exit.isFailure(yield* Effect.exit(dial(to))))
      })
    )

    it.effect("HttpServer.layerServer and make give the server alone", () =>
      Effect.gen(function* () {
        const options = { port: 0, host: "127.0.0.1" }
        const app = HttpServer.serve(Effect.succeed(hello)).pipe(
          Layer.provideMerge(http.layerServer(createServer, options))
        )
        yield* get.pipe(
          Effect.map((body) => assert.strictEqual(body, "hello")),
          Effect.provide(app)
        )
        const server = yield* http.make(createServer, options)
        yield* server.serve(Effect.succeed(hello))
        assert.strictEqual(yield* Effect.provideService(get, HttpServer.HttpServer, server), "hello")
      })
    )

    it.effect("the address is formatted, and logged", () =>
      Effect.gen(function* () {
        const lines: Array<unknown> = []
        const app = HttpServer.serve(Effect.succeed(hello)).pipe(
          HttpServer.withLogAddress,
          Layer.provideMerge(http.layer(createServer, { port: 0, host: "127.0.0.1" })),
          Layer.provideMerge(Logger.layer([Logger.make(({ message }) => void lines.push(...[message].flat()))]))
        )
        yield* Effect.gen(function* () {
          const expected = `http://127.0.0.1:${yield* port}`
          assert.strictEqual(yield* HttpServer.addressFormattedWith(Effect.succeed), expected)
          assert.include(lines, `Listening on ${expected}`)
        }).pipe(Effect.provide(app))
      })
    )

    it.effect("layerConfig reads its options from a ConfigProvider", () =>
      Effect.gen(function* () {
        const app = HttpServer.serve(Effect.succeed(hello)).pipe(
          Layer.provideMerge(
            http.layerConfig(createServer, {
              port: Config.Port("PORT"),
              host: Config.String("HOST"),
              gracefulShutdownTimeout: Config.Duration("GRACE")
            })
          )
        )
        const given = (env: Record<string, string>) => Effect.provide(Layer.provide(app, environment(env)))
        const free = yield* freePort
        const ports = yield* port.pipe(given({ PORT: String(free), HOST: "127.0.0.1", GRACE: "1 second" }))
        assert.strictEqual(ports, free)
        const error = yield* Effect.flip(port.pipe(given({ PORT: "http", HOST: "127.0.0.1", GRACE: "1 second" })))
        assert.strictEqual(error._tag, "ConfigError")
      })
    )

    it.live("on a Unix path, whose file goes with the listener", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const path = `${yield* fs.makeTempDirectoryScoped()}/app.sock`
        yield* Effect.gen(function* () {
          const { address } = yield* HttpServer.HttpServer
          assert.strictEqual(HttpServer.formatAddress(address), `unix://${path}`)
          const peer = yield* dial(path)
          yield* peer.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
          assert.match(yield* peer.closed, /\r\n\r\nhello$/)
        }).pipe(
          Effect.provide(
            HttpServer.serve(Effect.succeed(hello)).pipe(Layer.provideMerge(http.layer(createServer, { path })))
          )
        )
        assert.isFalse(yield* fs.exists(path))
      }).pipe(Effect.provide(NodeFileSystem.layer))
    )

    const describeRequest = (request: HttpServerRequest.HttpServerRequest) =>
      Effect.map(request.text, (text) =>
        HttpServerResponse.text(
          `${Option.getOrThrow(HttpServerRequest.toURL(request)).protocol} ${request.method} ${text}`
        )
      )
    const over = (evaluate: Parameters<Listener["layer"]>[0]) =>
      HttpRouter.serve(HttpRouter.add("*", "/", describeRequest), { disableListenLog: true, disableLogger: true }).pipe(
        Layer.provideMerge(http.layer(evaluate, { port: 0, host: "127.0.0.1" }))
      )

    it.live("over TLS", () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* postTls(yield* port, "body"), "https: POST body")
      }).pipe(Effect.provide(over(() => createSecureServer(certificate))))
    )

    it.live("over HTTP/2 in the clear, with streams side by side", () =>
      Effect.gen(function* () {
        const session = yield* http2(`http://127.0.0.1:${yield* port}`)
        const answers = yield* Effect.forEach(["a", "b", "c"], (text) => postHttp2(session, text), {
          concurrency: "unbounded"
        })
        assert.deepStrictEqual(
          answers,
          ["a", "b", "c"].map((text) => `http: POST ${text}`)
        )
      }).pipe(Effect.provide(over(() => createHttp2Server())))
    )

    it.live("over HTTP/2 and TLS, with HTTP/1.1 for who speaks nothing else", () =>
      Effect.gen(function* () {
        const to = yield* port
        const session = yield* http2(`https://localhost:${to}`)
        assert.strictEqual(yield* postHttp2(session, "two"), "https: POST two")
        assert.strictEqual(yield* postTls(to, "one"), "https: POST one")
      }).pipe(Effect.provide(over(() => createSecureHttp2Server({ ...certificate, allowHTTP1: true }))))
    )

    it.live.each([
      { secure: false, evaluate: () => createHttp2Server() },
      { secure: true, evaluate: () => createSecureHttp2Server(certificate) }
    ])("over HTTP/2 an idle session is told to go when the listener closes (TLS: $secure)", ({ evaluate, secure }) =>
      Effect.gen(function* () {
        const goaway = yield* Deferred.make<number>()
        yield* Effect.gen(function* () {
          const session = yield* http2(`${secure ? "https://localhost" : "http://127.0.0.1"}:${yield* port}`)
          session.on("goaway", (code) => void Deferred.doneUnsafe(goaway, Exit.succeed(code)))
          session.on("close", () => void Deferred.doneUnsafe(goaway, Exit.die("closed without GOAWAY")))
          assert.strictEqual(yield* postHttp2(session, "body"), `${secure ? "https" : "http"}: POST body`)
        }).pipe(Effect.provide(over(evaluate)))
        assert.strictEqual(yield* Deferred.await(goaway), constants.NGHTTP2_NO_ERROR)
      })
    )

    it.live("over HTTP/2 a client that resets its stream interrupts the handler", () =>
      Effect.gen(function* () {
        const started = yield* Deferred.make<void>()
        const ended = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
        const handler = Effect.andThen(Deferred.succeed(started, undefined), Effect.never).pipe(
          Effect.onExit((exit) => Deferred.succeed(ended, exit))
        )
        yield* Effect.gen(function* () {
          const session = yield* http2(`http://127.0.0.1:${yield* port}`)
          const stream = session.request({ ":path": "/never" })
          stream.on("error", () => {})
          yield* Deferred.await(started)
          stream.close(constants.NGHTTP2_CANCEL)
          assert.isTrue(Exit.isFailure(yield* Deferred.await(ended)))
          assert.strictEqual(yield* postHttp2(session, "still there"), "http: POST still there")
        }).pipe(
          Effect.provide(
            HttpRouter.serve(
              HttpRouter.addAll([
                HttpRouter.route("POST", "/", describeRequest),
                HttpRouter.route("GET", "/never", handler)
              ]),
              { disableListenLog: true, disableLogger: true }
            ).pipe(Layer.provideMerge(http.layer(() => createHttp2Server(), { port: 0, host: "127.0.0.1" })))
          )
        )
      })
    )

    it.effect("a test on the virtual clock ends by itself, whatever is still connected", () =>
      Effect.gen(function* () {
        const app = HttpServer.serve(Effect.succeed(hello)).pipe(Layer.provideMerge(http.layerTest))
        yield* Effect.gen(function* () {
          assert.strictEqual(yield* (yield* HttpClient.get("/")).text, "hello")
          const idle = yield* dial(yield* port)
          yield* idle.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
          yield* idle.until(/hello$/)
        }).pipe(Effect.provide(app), Effect.scoped)
      })
    )
  })
})

describe("KmsHttp", () => {
  const local = { port: 0, host: "127.0.0.1", quietPeriod: 0 }
  const answers = (text: string) => HttpServer.serveEffect(Effect.succeed(HttpServerResponse.text(text)))

  it.live("tells of a handler whose stream was reset, while its session goes on", () =>
    Effect.gen(function* () {
      const started = yield* Deferred.make<void>()
      const end = yield* Deferred.make<void>()
      const inside = yield* Deferred.make<Effect.Effect<Kms.Status>>()
      const stubborn = Effect.uninterruptible(
        Effect.andThen(
          Deferred.succeed(started, undefined),
          Effect.as(Deferred.await(end), HttpServerResponse.text("late"))
        )
      )
      const server = createHttp2Server()
      const routes = [
        HttpRouter.route("GET", "/stubborn", stubborn),
        HttpRouter.route("GET", "/ok", Effect.succeed(HttpServerResponse.text("ok")))
      ]
      const program = yield* Ways.launchSignal.start(
        Layer.effectDiscard(
          Effect.flatMap(Effect.context<never>(), (context) =>
            Deferred.succeed(inside, Effect.provideContext(Kms.status, context))
          )
        ).pipe(
          Layer.provide(HttpRouter.serve(HttpRouter.addAll(routes), { disableListenLog: true, disableLogger: true })),
          Layer.provide(KmsHttp.layer(() => server, local))
        )
      )
      const peer = yield* Peers.session((server.address() as AddressInfo).port)
      const { stream } = peer.request("/stubborn")
      stream.on("error", () => {})
      yield* Deferred.await(started)
      stream.close(constants.NGHTTP2_CANCEL)
      assert.strictEqual((yield* peer.request("/ok").response).text, "ok")
      const [listener] = (yield* yield* Deferred.await(inside)).listeners
      assert.deepStrictEqual(
        listener!.oldest.map(({ what }) => what),
        ["GET /stubborn"]
      )
      yield* Deferred.succeed(end, undefined)
      program.begin()
      assert.strictEqual((yield* program.ended).code, 0)
    }).pipe(Effect.scoped)
  )

  it.live("answers unusual requests byte for byte as NodeHttpServer does", () =>
    Effect.gen(function* () {
      const close = "Host: a\r\nConnection: close\r\n"
      const upgrade = "Host: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
      const requests = [
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        `GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n${close}\r\n`,
        `GET http://b/ HTTP/1.1\r\n${close}\r\n`,
        `OPTIONS * HTTP/1.1\r\n${close}\r\n`,
        "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        `POST / HTTP/1.1\r\n${close}Expect: much\r\nContent-Length: 1\r\n\r\nx`,
        `POST / HTTP/1.1\r\n${close}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n`,
        `POST / HTTP/1.1\r\n${close}Transfer-Encoding: chunked\r\n\r\nzz\r\n`,
        `POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n${"x".repeat(300_000)}`,
        `GET / HTTP/1.1\r\n${upgrade}\r\n`,
        `POST / HTTP/1.1\r\n${upgrade}Content-Length: 1\r\n\r\nx`,
        `GET /websocket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
        `GET /interim HTTP/1.1\r\n${close}\r\n`,
        `GET /header HTTP/1.1\r\n${close}\r\n`,
        `GET /events HTTP/1.1\r\n${close}\r\n`,
        `HEAD /events HTTP/1.1\r\n${close}\r\n`
      ]
      const app = HttpRouter.addAll([
        HttpRouter.route("*", "*", (request) =>
          Effect.map(request.text, (text) => HttpServerResponse.text(`${request.method} ${request.url} ${text}`))
        ),
        HttpRouter.route("POST", "/unread", HttpServerResponse.text("no")),
        HttpRouter.route(
          "GET",
          "/websocket",
          echo((request) => request.upgrade)
        ),
        HttpRouter.route("GET", "/interim", HttpServerResponse.empty({ status: 100 })),
        HttpRouter.route("GET", "/header", HttpServerResponse.text("", { headers: { "x-bad": "a\nb" } })),
        HttpRouter.route(
          "GET",
          "/events",
          HttpServerResponse.stream(bytes("data: 1\n\n"), { contentType: "text/event-stream" })
        )
      ])
      const answersOf = (http: Listener) =>
        Effect.gen(function* () {
          const to = yield* port
          return yield* Effect.forEach(
            requests,
            (request) =>
              Effect.gen(function* () {
                const peer = yield* dial(to)
                yield* peer.write(request)
                return `${request.slice(0, 50)}\n${(yield* peer.closed).replace(/^Date: .*\r\n/gm, "")}`
              }).pipe(Effect.scoped),
            { concurrency: "unbounded" }
          )
        }).pipe(Effect.provide(Layer.provideMerge(serving(http, app), Logger.layer([]))))
      const [expected, actual] = yield* Effect.forEach(listeners, ({ http }) => answersOf(http))
      assert.isAbove(expected!.filter((answer) => / 200 OK\r\n/.test(answer)).length, requests.length / 2)
      assert.deepStrictEqual(actual, expected)
    })
  )

  describe("several applications on one listener", () => {
    it.effect("the one that was served last answers, and when it closes the one before", () =>
      Effect.gen(function* () {
        const first = yield* Scope.make()
        const second = yield* Scope.make()
        const third = yield* Scope.make()
        const text = Effect.flatMap(HttpClient.get("/"), (response) => response.text)
        yield* Scope.provide(answers("first"), first)
        assert.strictEqual(yield* text, "first")
        yield* Scope.provide(answers("second"), second)
        yield* Scope.provide(answers("third"), third)
        assert.strictEqual(yield* text, "third")
        yield* Scope.close(second, Exit.void)
        assert.strictEqual(yield* text, "third")
        yield* Scope.close(third, Exit.void)
        assert.strictEqual(yield* text, "first")
        const to = yield* port
        yield* Scope.close(first, Exit.void)
        assert.isTrue(Exit.isFailure(yield* Effect.exit(dial(to))))
      }).pipe(Effect.provide(KmsHttp.layerTest))
    )

    it.effect("each is run once for a request, and only the one that answers it", () =>
      Effect.gen(function* () {
        const runs: Array<string> = []
        const counted = (name: string) =>
          HttpServer.serveEffect(
            Effect.sync(() => {
              runs.push(name)
              return HttpServerResponse.text(name)
            })
          )
        yield* counted("first")
        yield* counted("second")
        yield* HttpClient.get("/")
        yield* HttpClient.get("/")
        assert.deepStrictEqual(runs, ["second", "second"])
      }).pipe(Effect.provide(KmsHttp.layerTest), Effect.scoped)
    )

    it.effect("closing one lets its requests finish, while new ones go to the other", () =>
      Effect.gen(function* () {
        const started = yield* Deferred.make<void>()
        const finish = yield* Deferred.make<void>()
        const slow = yield* Scope.make()
        yield* answers("quick")
        yield* HttpServer.serveEffect(
          Effect.andThen(
            Effect.andThen(Deferred.succeed(started, undefined), Deferred.await(finish)),
            Effect.succeed(HttpServerResponse.text("slow"))
          )
        ).pipe(Scope.provide(slow))
        const waiting = yield* Effect.forkChild(Effect.flatMap(HttpClient.get("/"), ({ text }) => text))
        yield* Deferred.await(started)
        const closing = yield* Effect.forkChild(Scope.close(slow, Exit.void), { startImmediately: true })
        assert.strictEqual(yield* (yield* HttpClient.get("/")).text, "quick")
        assert.isUndefined(closing.pollUnsafe())
        yield* Deferred.succeed(finish, undefined)
        assert.strictEqual(yield* Fiber.join(waiting), "slow")
        yield* Fiber.join(closing)
      }).pipe(Effect.provide(KmsHttp.layerTest), Effect.scoped)
    )
  })

  it.effect("an application that is closed by a request of its own, in the first step of it, answers it", () =>
    Effect.gen(function* () {
      const own = yield* Scope.make()
      const closed = yield* Deferred.make<void>()
      yield* answers("other")
      const server = yield* HttpServer.HttpServer
      const closing = server.serve(
        Effect.gen(function* () {
          const close = Effect.andThen(Scope.close(own, Exit.void), Deferred.succeed(closed, undefined))
          yield* Effect.forkDetach(close, { startImmediately: true })
          yield* Effect.interruptible(Effect.repeat(turn, { times: 20 }))
          return HttpServerResponse.text("closing")
        })
      )
      yield* Scope.provide(closing, own)
      assert.strictEqual(yield* get, "closing")
      yield* Deferred.await(closed)
      assert.strictEqual(yield* get, "other")
    }).pipe(Effect.provide(KmsHttp.layerTest), Effect.scoped)
  )

  it.live("an application that is served after the drain has begun answers what still comes, and is waited for", () =>
    Effect.gen(function* () {
      const own = yield* Scope.make()
      const [node, begun] = observed()
      const ended: Array<string> = []
      const options = { ...local, quietPeriod: "10 seconds", drainTimeout: "10 seconds" } as const
      const server = yield* Scope.provide(
        KmsHttp.make(() => node, options),
        own
      )
      const peer = yield* dial(yield* Effect.provideService(port, HttpServer.HttpServer, server))
      // It has been accepted by then, and has said nothing.
      yield* turn
      const closing = yield* Effect.forkChild(
        Effect.andThen(
          Scope.close(own, Exit.void),
          Effect.sync(() => ended.push("drain"))
        ),
        { startImmediately: true }
      )
      yield* begun
      const late = Effect.gen(function* () {
        yield* Effect.addFinalizer(() =>
          Effect.andThen(
            Effect.sleep("200 millis"),
            Effect.sync(() => ended.push("handler"))
          )
        )
        return HttpServerResponse.text("late")
      })
      yield* server.serve(late)
      yield* peer.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
      assert.match(yield* peer.closed, /^HTTP\/1\.1 200 OK\r\n[^]*late$/)
      assert.isTrue(Option.isSome(yield* Effect.timeoutOption(Fiber.join(closing), "5 seconds")))
      assert.deepStrictEqual(ended, ["handler", "drain"])
    }).pipe(Effect.scoped)
  )

  it.live("nothing is kept of a request that has been answered", () =>
    Effect.gen(function* () {
      setFlagsFromString("--expose-gc")
      const collect = runInNewContext("gc") as () => void
      const bodies: Array<WeakRef<Uint8Array>> = []
      yield* HttpServer.serveEffect(
        Effect.sync(() => {
          const body = new Uint8Array(1024).fill(97)
          bodies.push(new WeakRef(body))
          return HttpServerResponse.uint8Array(body)
        })
      )
      const peer = yield* dial(yield* port)
      yield* peer.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
      yield* peer.until(/a{1024}$/)
      yield* Effect.repeat(Effect.andThen(turn, Effect.sync(collect)), { times: 3 })
      assert.strictEqual(bodies.length, 1)
      assert.isUndefined(bodies[0]!.deref())
    }).pipe(Effect.provide(KmsHttp.layer(createServer, local)), Effect.scoped)
  )

  it.effect("the answer of a listener that the server had before the application says close in the drain", () =>
    Effect.gen(function* () {
      const own = yield* Scope.make()
      const [node, begun] = observed()
      node.on("request", ({ url }, response) => url === "/own" && response.end("own"))
      const server = yield* Scope.provide(
        KmsHttp.make(() => node, { ...local, quietPeriod: "10 seconds" }),
        own
      )
      yield* Scope.provide(server.serve(Effect.succeed(HttpServerResponse.text("home"))), own)
      const peer = yield* dial(yield* Effect.provideService(port, HttpServer.HttpServer, server))
      yield* peer.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
      yield* peer.until(/home$/)
      const closing = yield* Effect.forkChild(Scope.close(own, Exit.void), { startImmediately: true })
      yield* begun
      yield* peer.write("GET /own HTTP/1.1\r\nHost: a\r\n\r\n")
      yield* peer.until(/Connection: close\r\n[^]*own$/)
      yield* peer.closed
      yield* Fiber.join(closing)
    })
  )

  it.effect("a request that comes before anyone serves is answered once someone does", () =>
    Effect.gen(function* () {
      const arrived = yield* Deferred.make<void>()
      const evaluate = () => createServer().on("request", () => void Deferred.doneUnsafe(arrived, Exit.void))
      yield* Effect.gen(function* () {
        const peer = yield* dial(yield* port)
        yield* peer.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        yield* Deferred.await(arrived)
        assert.strictEqual(peer.received(), "")
        yield* answers("late")
        yield* peer.until(/^HTTP\/1\.1 200 OK\r\n[^]*late$/)
      }).pipe(Effect.provide(KmsHttp.layer(evaluate, local)), Effect.scoped)
    })
  )

  it.effect("a request that nobody ever serves is answered with 503 when the listener closes", () =>
    Effect.gen(function* () {
      const arrived = yield* Deferred.make<void>()
      const evaluate = () => createServer().on("request", () => void Deferred.doneUnsafe(arrived, Exit.void))
      const own = yield* Scope.make()
      const server = yield* Scope.provide(KmsHttp.make(evaluate, local), own)
      const peer = yield* dial(yield* Effect.provideService(port, HttpServer.HttpServer, server))
      yield* peer.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
      yield* Deferred.await(arrived)
      yield* Scope.close(own, Exit.void)
      assert.match(yield* peer.closed, /^HTTP\/1\.1 503 Service Unavailable\r\n/)
    })
  )

  it.effect("a client that asks for an upgrade before anyone serves, and goes away, does no harm", () =>
    Effect.gen(function* () {
      const arrived = yield* Deferred.make<Duplex>()
      const evaluate = () =>
        createServer().on("upgrade", (_, socket) => void Deferred.doneUnsafe(arrived, Exit.succeed(socket)))
      yield* Effect.gen(function* () {
        const peer = yield* dial(yield* port)
        yield* peer.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n")
        const socket = yield* Deferred.await(arrived)
        yield* turn
        // A reset that nobody listens for would end the process.
        assert.isAbove(socket.listenerCount("error"), 0)
        const closed = Effect.callback<void>((resume) => void socket.once("close", () => resume(Effect.void)))
        peer.socket.resetAndDestroy()
        yield* closed
        yield* answers("late")
        assert.strictEqual(yield* get, "late")
      }).pipe(Effect.provide(KmsHttp.layer(evaluate, local)), Effect.scoped)
    })
  )

  it.effect("a request that asks for an upgrade, and is answered without one, is finished when the drain begins", () =>
    Effect.gen(function* () {
      const started = yield* Deferred.make<void>()
      const finish = yield* Deferred.make<void>()
      const own = yield* Scope.make()
      const [node, begun] = observed()
      const server = yield* Scope.provide(
        KmsHttp.make(() => node, local),
        own
      )
      const plain = Effect.as(Deferred.await(finish), HttpServerResponse.text("plain"))
      yield* server.serve(Effect.andThen(Deferred.succeed(started, undefined), plain)).pipe(Scope.provide(own))
      const peer = yield* dial(yield* Effect.provideService(port, HttpServer.HttpServer, server))
      // As curl and Java begin, wherever they would like HTTP/2.
      yield* peer.write(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n\r\n"
      )
      yield* Deferred.await(started)
      const closing = yield* Effect.forkChild(Scope.close(own, Exit.void), { startImmediately: true })
      yield* begun
      yield* Deferred.succeed(finish, undefined)
      assert.match(yield* peer.closed, /^HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\nplain$/)
      yield* Fiber.join(closing)
    })
  )

  it.effect("layerConfig takes the options of the drain as well", () =>
    Effect.gen(function* () {
      const layer = KmsHttp.layerConfig(createServer, {
        port: Config.succeed(0),
        quietPeriod: Config.Duration("QUIET"),
        drainTimeout: Config.Duration("DRAIN")
      })
      const given = (env: Record<string, string>) => Effect.provide(port, Layer.provide(layer, environment(env)))
      assert.isAbove(yield* given({ QUIET: "1 second", DRAIN: "5 seconds" }), 0)
      const error = yield* Effect.flip(given({ QUIET: "1 second", DRAIN: "0 seconds" }))
      assert.strictEqual(error._tag, "ServeError")
      assert.include(error.message, "drainTimeout")
    })
  )

  it.effect("gracefulShutdownTimeout is read as drainTimeout, where that is not given", () =>
    Effect.gen(function* () {
      const started = yield* Deferred.make<void>()
      const own = yield* Scope.make()
      const [node, begun] = observed()
      const server = yield* Scope.provide(
        KmsHttp.make(() => node, { ...local, gracefulShutdownTimeout: "3 seconds" }),
        own
      )
      yield* server.serve(Effect.andThen(Deferred.succeed(started, undefined), Effect.never)).pipe(Scope.provide(own))
      const peer = yield* dial(yield* Effect.provideService(port, HttpServer.HttpServer, server))
      yield* peer.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
      yield* Deferred.await(started)
      const closing = yield* Effect.forkChild(Scope.close(own, Exit.void), { startImmediately: true })
      yield* begun
      yield* TestClock.adjust("2999 millis")
      assert.isFalse(peer.socket.closed)
      yield* TestClock.adjust("1 millis")
      yield* peer.closed
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(closing)
    })
  )

  it.effect("disablePreemptiveShutdown is ignored with a warning", () =>
    Effect.gen(function* () {
      const lines: Array<unknown> = []
      const log = Logger.layer([Logger.make(({ message }) => void lines.push(...[message].flat()))])
      yield* KmsHttp.make(createServer, { port: 0, disablePreemptiveShutdown: true }).pipe(Effect.provide(log))
      assert.isTrue(lines.some((line) => /disablePreemptiveShutdown is ignored/.test(String(line))))
    })
  )

  it.live.each(["tcp", "unix"] as const)(
    "an inherited descriptor (%s) is listened on, and drained when the process is told to stop",
    (kind) =>
      Effect.gen(function* () {
        const path = `${yield* (yield* FileSystem.FileSystem).makeTempDirectoryScoped()}/app.sock`
        const program = yield* Program.start(Program.beside(import.meta.url, "support/activation.ts"), {
          args: [kind === "tcp" ? "tcp" : path]
        })
        const [, address] = yield* program.printed(/listening on (.*)\n/)
        const peer = yield* dial(kind === "tcp" ? Number(new URL(address!).port) : path)
        yield* peer.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        yield* peer.until(/\r\n\r\nactivated$/)
        yield* program.kill("SIGTERM")
        yield* peer.closed
        assert.strictEqual((yield* program.ended).code, 0)
      }).pipe(Effect.provide(NodeFileSystem.layer))
  )
})

describe("trouble at the start", () => {
  /** What listens, is connected or looks up names, in this process. */
  const open = () => process.getActiveResourcesInfo().filter((name) => /Server|Socket|Connect|AddrInfo/.test(name))

  /** What is open now and was not before. What earlier tests left may close meanwhile. */
  const leftOpen = (before: ReadonlyArray<string>) =>
    Effect.map(turn, () => {
      const left = open()
      for (const name of before) if (left.includes(name)) left.splice(left.indexOf(name), 1)
      return left
    })

  /** The error of a listener that cannot start, after which nothing more is open than before. */
  const failure = (
    options: KmsHttp.Options,
    evaluate: Parameters<typeof KmsHttp.make>[0] = createServer
  ): Effect.Effect<HttpServerError.ServeError, HttpServer.HttpServer["Service"]> =>
    Effect.gen(function* () {
      const before = open()
      const error = yield* Effect.flip(Effect.scoped(KmsHttp.make(evaluate, options)))
      assert.deepStrictEqual(yield* leftOpen(before), [])
      assert.strictEqual(error._tag, "ServeError")
      return error
    })

  interface Place {
    /** A directory to write to, one that allows nobody to, and a file. */
    readonly directory: string
    readonly closed: string
    readonly file: string
    /** A port that somebody listens on. */
    readonly taken: number
    /** A descriptor of the file. */
    readonly fd: number
  }

  const place = Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const directory = yield* fs.makeTempDirectoryScoped()
    yield* fs.chmod(directory, 0o755)
    const closed = `${directory}/closed`
    yield* fs.makeDirectory(closed, { mode: 0o555 })
    const file = `${directory}/file`
    yield* fs.writeFileString(file, "text")
    const taken = yield* Effect.acquireRelease(
      Effect.callback<NetServer>((resume) => {
        const server = createNetServer().listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
      }),
      (server) => Effect.sync(() => server.close())
    )
    const fd = yield* Effect.acquireRelease(
      Effect.sync(() => openSync(file, "r")),
      (fd) => Effect.sync(() => closeSync(fd))
    )
    return { directory, closed, file, taken: (taken.address() as AddressInfo).port, fd } satisfies Place
  })

  it.live.each<{
    readonly what: string
    readonly options: (place: Place) => KmsHttp.Options
    readonly address: (place: Place) => string
    readonly says?: RegExp
  }>([
    {
      what: "a port in use",
      options: ({ taken }) => ({ port: taken, host: "127.0.0.1" }),
      address: ({ taken }) => `127.0.0.1:${taken}`,
      says: /the address is in use$/
    },
    {
      what: "an address of another machine",
      options: () => ({ port: 0, host: "192.0.2.1" }),
      address: () => "192.0.2.1:0",
      says: /this machine has no such address$/
    },
    { what: "a port out of range", options: () => ({ port: 65536 }), address: () => ":65536", says: /< 65536/ },
    { what: "a negative port", options: () => ({ port: -1 }), address: () => ":-1" },
    { what: "a port that is not a number", options: () => ({ port: Number.NaN }), address: () => ":NaN" },
    { what: "no address at all", options: () => ({}), address: () => ":0", says: /"port" or "path"/ },
    {
      what: "a path without permission",
      options: ({ closed }) => ({ path: `${closed}/app.sock` }),
      address: ({ closed }) => `${closed}/app.sock`,
      says: /permission denied/
    },
    {
      what: "a path in a directory that does not exist",
      options: ({ directory }) => ({ path: `${directory}/none/app.sock` }),
      address: ({ directory }) => `${directory}/none/app.sock`,
      says: /no such directory$/
    },
    {
      what: "a path under a file",
      options: ({ file }) => ({ path: `${file}/app.sock` }),
      address: ({ file }) => `${file}/app.sock`,
      says: /a part of the path is not a directory$/
    },
    {
      what: "a path that is a directory",
      options: ({ directory }) => ({ path: directory }),
      address: (p) => p.directory
    },
    {
      what: "a path that is another file",
      options: ({ file }) => ({ path: file }),
      address: ({ file }) => file,
      says: /not a socket$/
    },
    {
      what: "a path that is too long",
      options: ({ directory }) => ({ path: `${directory}/${"x".repeat(108)}` }),
      address: ({ directory }) => `${directory}/${"x".repeat(108)}`,
      says: /too long$/
    },
    {
      what: "a descriptor of a file",
      options: ({ fd }) => ({ fd }),
      address: ({ fd }) => `descriptor ${fd}`,
      says: /not a socket/
    },
    { what: "a descriptor that is not open", options: () => ({ fd: 9999 }), address: () => "descriptor 9999" },
    { what: "a negative descriptor", options: () => ({ fd: -1 }), address: () => "descriptor -1" }
  ])("$what is an error that names the address", ({ address, options, says }) =>
    Effect.gen(function* () {
      const at = yield* place
      const fs = yield* FileSystem.FileSystem
      const error = yield* unprivileged(failure(options(at)))
      assert.propertyVal(error.cause, "_tag", "BindError")
      assert.propertyVal(error.cause, "address", address(at))
      assert.isTrue(error.message.startsWith(`Cannot listen on ${address(at)}: `), error.message)
      if (says !== undefined) assert.match(error.message, says)
      assert.strictEqual(yield* fs.readFileString(at.file), "text")
    }).pipe(Effect.provide(NodeFileSystem.layer))
  )

  const misread = (given: object) => ({ port: 0, host: "127.0.0.1", ...given }) as KmsHttp.Options

  it.live.each(
    [
      ...["closeTimeout", "quietPeriod"].flatMap((option) =>
        [-1, "-1 second", Number.NaN, "soon", Number.POSITIVE_INFINITY].map((value) => ({ option, value }))
      ),
      ...[-1, Number.NaN, "soon", 0].map((value) => ({ option: "drainTimeout", value })),
      ...[-1, Number.NaN, "soon"].map((value) => ({ option: "gracefulShutdownTimeout", value })),
      { option: "drainOn", value: "never" },
      { option: "eventStreams", value: "never" }
    ].map((given) => ({ ...given, what: `${given.option}: ${given.value}` }))
  )("$what is an error that names the option", ({ option, value }) =>
    Effect.gen(function* () {
      const error = yield* failure(misread({ [option]: value }))
      assert.instanceOf(error.cause, Kms.OptionError)
      assert.propertyVal(error.cause, "option", option)
      assert.include(error.message, `Option ${option} is `)
      assert.include(error.message, String(value))
    })
  )

  it.live("zero is no error where it can be meant", () =>
    Effect.scoped(
      KmsHttp.make(createServer, misread({ closeTimeout: 0, quietPeriod: 0, gracefulShutdownTimeout: 0 }))
    ).pipe(Effect.map(({ address }) => assert.isTrue(NetAddress.isInetAddress(address))))
  )

  it.live("a server that cannot be made is an error, with what its maker threw", () =>
    Effect.gen(function* () {
      const error = yield* failure({ port: 0 }, () => {
        throw new Error("no certificate")
      })
      assert.strictEqual(error.message, "Cannot make the HTTP server: no certificate")
    })
  )

  it.live("a server that listens already is an error, and goes on listening", () =>
    Effect.gen(function* () {
      const server = createServer()
      yield* Effect.acquireRelease(
        Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
        () => Effect.sync(() => server.close())
      )
      const error = yield* failure({ port: 0 }, () => server)
      assert.propertyVal(error.cause, "option", "evaluate")
      assert.isTrue(server.listening)
    })
  )

  it.live("a port can be listened on as soon as a start on it has failed or has been interrupted", () =>
    Effect.gen(function* () {
      const port = yield* freePort
      const again = Effect.scoped(KmsHttp.make(createServer, { port, host: "127.0.0.1" }))
      yield* failure(misread({ port, drainTimeout: 0 }))
      yield* again
      // A name is looked up before the port is bound: it is interrupted in between.
      const lookedUp = yield* Deferred.make<void>()
      const server = createServer().once("close", () => void Deferred.doneUnsafe(lookedUp, Exit.void))
      const binding = yield* Effect.forkChild(Effect.scoped(KmsHttp.make(() => server, { port, host: "localhost" })), {
        startImmediately: true
      })
      assert.isFalse(server.listening)
      yield* Fiber.interrupt(binding)
      yield* Deferred.await(lookedUp)
      assert.isFalse(server.listening)
      yield* again
    })
  )

  it.live("layerNode fails in the same way", () =>
    Effect.gen(function* () {
      const { taken } = yield* place
      const layer = KmsHttp.layerNode(() => createServer(), { port: taken, host: "127.0.0.1" })
      const error = yield* Effect.flip(Effect.scoped(Layer.build(layer)))
      assert.strictEqual(error._tag, "ServeError")
      assert.include(error.message, `127.0.0.1:${taken}`)
    }).pipe(Effect.provide(NodeFileSystem.layer))
  )

  // Nothing of this process is to be listened to.
  const own = { signals: [], uncaught: false } as const
  const quietly = Effect.provide(Logger.layer([]))

  it.live("Kms.launch fails with the error of the listener, and closes what had started before", () =>
    Effect.gen(function* () {
      const { taken } = yield* place
      const free = yield* freePort
      const released: Array<string> = []
      const resource = (name: string) =>
        Layer.effectDiscard(Effect.addFinalizer(() => Effect.sync(() => released.push(name))))
      const listening = (port: number) =>
        HttpServer.serve(Effect.succeed(HttpServerResponse.text("up"))).pipe(
          Layer.provide(KmsHttp.layer(createServer, { port, host: "127.0.0.1" }))
        )
      const before = open()
      const app = listening(taken).pipe(
        Layer.provideMerge(resource("second")),
        Layer.provideMerge(listening(free)),
        Layer.provideMerge(resource("first"))
      )
      const error = yield* quietly(Effect.flip(Kms.launch(app, own)))
      assert.strictEqual(error._tag, "ServeError")
      assert.include(error.message, `127.0.0.1:${taken}: the address is in use`)
      assert.deepStrictEqual(released, ["second", "first"])
      assert.deepStrictEqual(yield* leftOpen(before), [])
      yield* Effect.scoped(KmsHttp.make(createServer, { port: free, host: "127.0.0.1" }))
    }).pipe(Effect.provide(NodeFileSystem.layer))
  )

  it.live.each(
    [
      ...[0, -1, Number.NaN, "soon"].map((value) => ({ option: "timeout", value })),
      ...[0, -1, Number.NaN, "soon", Number.POSITIVE_INFINITY].map((value) => ({ option: "forceTimeout", value })),
      ...[-1, Number.NaN, "soon", Number.POSITIVE_INFINITY, "25 seconds", "1 minute"].map((value) => ({
        option: "lameDuck",
        value
      })),
      ...["SIGFOO", "SIGKILL", "SIGSTOP"].map((value) => ({ option: "signals", value: ["SIGTERM", value] }))
    ].map((given) => ({ ...given, what: `${given.option}: ${given.value}` }))
  )("Kms.launch with $what fails with an error that names the option, and builds nothing", ({ option, value }) =>
    Effect.gen(function* () {
      const built = Effect.die("It has been run")
      const app = Layer.effectDiscard(built)
      const before = process.listenerCount("SIGTERM")
      const options = { ...own, [option]: value } as Kms.Options
      for (const run of [Kms.launch(app, options), Kms.listen(built, options)]) {
        const error = yield* quietly(Effect.flip(run))
        assert.instanceOf(error, Kms.OptionError)
        assert.include(error.message, `Option ${option} is `)
        assert.include(error.message, String([value].flat().at(-1)))
      }
      assert.strictEqual(process.listenerCount("SIGTERM"), before)
    })
  )
})

const okay = Effect.succeed(HttpServerResponse.text("fine"))

const append =
  (value: string): HttpEffect.PreResponseHandler =>
  (_, response) =>
    Effect.succeed(
      HttpServerResponse.setHeader(
        response,
        "x-before",
        [response.headers["x-before"], value].filter(Boolean).join(", ")
      )
    )

const before = (value: string) => HttpEffect.appendPreResponseHandler(append(value))

const json = (value: unknown) => Effect.orDie(HttpServerResponse.json(value))

const bytes = (text: string) => Stream.succeed(new TextEncoder().encode(text))

const large = new Uint8Array(300_000).map((_, index) => index * 7)

const hash = (content: Uint8Array) => createHash("sha256").update(content).digest("hex")

/** Sends back what comes, until the peer leaves. */
const echo =
  (open: (request: HttpServerRequest.HttpServerRequest) => HttpServerRequest.HttpServerRequest["upgrade"]) =>
  (request: HttpServerRequest.HttpServerRequest) =>
    Effect.gen(function* () {
      const socket = yield* open(request)
      const { pull } = yield* socket.reader
      const { writeAll } = yield* socket.writer
      return yield* Effect.forever(Effect.flatMap(pull, writeAll))
    }).pipe(Effect.catchTag("SocketError", () => Effect.succeed(HttpServerResponse.empty())))

/** A WebSocket client that is open. */
const webSocket = (url: string) =>
  Effect.acquireRelease(
    Effect.callback<WebSocket>((resume) => {
      const socket = new WebSocket(url)
      socket.once("open", () => resume(Effect.succeed(socket)))
      socket.once("error", (cause) => resume(Effect.die(cause)))
    }),
    (socket) => Effect.sync(() => socket.terminate())
  ).pipe(
    Effect.map((socket) => {
      const closed = Deferred.makeUnsafe<{ readonly code: number }>()
      socket.on("close", (code) => Deferred.doneUnsafe(closed, Exit.succeed({ code })))
      return {
        socket,
        message: Effect.callback<Buffer>((resume) => {
          socket.once("message", (data: Buffer) => resume(Effect.succeed(data)))
        }),
        closed: Deferred.await(closed)
      }
    })
  )

const certificate = { key, cert }

const environment = (env: Record<string, string>) =>
  Layer.succeed(ConfigProvider.ConfigProvider)(ConfigProvider.fromUnknown(env))

/** The body of the answer to `GET /` from the server at hand. */
const get = Effect.gen(function* () {
  const peer = yield* dial(yield* port)
  yield* peer.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
  return (yield* peer.closed).replace(/^[^]*\r\n\r\n/, "")
}).pipe(Effect.scoped)

/** A port that was free a moment ago. */
const freePort = Effect.callback<number>((resume) => {
  const server = createNetServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address() as AddressInfo
    server.close(() => resume(Effect.succeed(port)))
  })
})

/** A server, and what completes once it no longer listens. */
const observed = () => {
  const server = createServer()
  return [server, Effect.repeat(turn, { until: () => !server.listening })] as const
}

const postTls = (to: number, body: string) =>
  Effect.callback<string>((resume) => {
    const options = { host: "127.0.0.1", servername: "localhost", port: to, method: "POST", ca: cert, agent: false }
    request(options, (response) => collect(response, resume))
      .on("error", (cause) => resume(Effect.die(cause)))
      .end(body)
  })

const http2 = (authority: string) =>
  Effect.acquireRelease(
    Effect.callback<ClientHttp2Session>((resume) => {
      const session = connectHttp2(authority, { ca: cert })
      session.once("connect", () => resume(Effect.succeed(session)))
      session.on("error", (cause) => resume(Effect.die(cause)))
    }),
    (session) => Effect.sync(() => session.destroy())
  )

const postHttp2 = (session: ClientHttp2Session, body: string) =>
  Effect.callback<string>((resume) => {
    const stream = session.request({ ":method": "POST", ":path": "/" })
    collect(stream, resume)
    stream.on("error", (cause) => resume(Effect.die(cause)))
    stream.end(body)
  })

const collect = (body: Readable, resume: (effect: Effect.Effect<string>) => void) => {
  let text = ""
  body.setEncoding("utf8")
  body.on("data", (chunk: string) => {
    text += chunk
  })
  body.on("end", () => resume(Effect.succeed(text)))
}

/** Completes after the event loop has gone round: closed handles have gone by then. */
const turn = Effect.callback<void>((resume) => void setImmediate(() => setImmediate(() => resume(Effect.void))))

/** Runs an effect as somebody who may not do everything, also where the tests run as root. */
const unprivileged = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      if (process.geteuid?.() !== 0) return false
      process.seteuid!(65534)
      return true
    }),
    () => self,
    (changed) =>
      Effect.sync(() => {
        if (changed) process.seteuid!(0)
      })
  )

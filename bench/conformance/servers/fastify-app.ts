/**
 * The application for Fastify 5.12.8, the same routes as in `plain.ts` in its own terms; the resources are released in its
 * `onClose` hooks, which run in reverse. WebSockets are those of `ws` on its server: `@fastify/websocket` is a package of
 * its own.
 */
import type { Server } from "node:http"
import { Readable } from "node:stream"
import { setTimeout as sleep } from "node:timers/promises"
import { cert, key } from "../../../test/support/certificate.ts"
import { load } from "../../peers/load.ts"
import { address, announce, attach, target, trouble } from "./plain.ts"
import { began, closeCache, closeDatabase, database, say, settings } from "./settings.ts"

interface Reply {
  header: (name: string, value: string) => Reply
  send: (body: unknown) => Reply
  raw: NodeJS.EventEmitter
}

interface App {
  address?: { host: string; port: number }
  server: Server
  get: (path: string, handler: (request: { url: string }, reply: Reply) => unknown) => void
  post: (path: string, handler: (request: { body: Readable }, reply: Reply) => unknown) => void
  addHook: {
    (name: "onClose", hook: () => Promise<void>): void
    (name: "onResponse", hook: (request: { url: string }) => Promise<void>): void
  }
  addContentTypeParser: (
    type: string,
    parse: (r: unknown, body: Readable, done: (e: null, b: Readable) => void) => void
  ) => void
  listen: (address: { host: string; port: number }) => Promise<string>
  close: () => Promise<void>
}

const fastify = load<(options: object) => App>("fastify")

const options = {
  http: {},
  https: { https: { cert, key } },
  h2c: { http2: true },
  h2: { http2: true, https: { cert, key } }
}[settings.mode]

async function* pieces(n: number, ms: number) {
  for (let left = n - 1; left >= 0; left--) {
    yield `chunk ${left}\n`
    if (left > 0) await sleep(ms)
  }
}

async function* ticks() {
  for (;;) {
    yield "data: tick\n\n"
    await sleep(50)
  }
}

const make = (): App => {
  const app = fastify(options)
  app.addHook("onResponse", async ({ url }) => say(`answered ${target(url).path}`))
  const get = (path: string, handler: (url: ReturnType<typeof target>, reply: Reply) => unknown) =>
    app.get(path, (request, reply) => {
      if (path !== "/quick") began(path)
      return handler(target(request.url), reply)
    })
  get("/quick", async () => "quick")
  get("/slow", async ({ number }) => {
    await sleep(number("ms"))
    return "slow"
  })
  get("/db", async ({ number }) => {
    await sleep(number("ms"))
    return database.open ? "open" : "closed"
  })
  get("/stream", ({ number }, reply) =>
    reply.header("content-type", "text/plain").send(Readable.from(pieces(number("n"), number("ms"))))
  )
  get("/sse", (_url, reply) => reply.header("content-type", "text/event-stream").send(Readable.from(ticks())))
  get("/big", ({ number }, reply) => reply.send(Buffer.alloc(number("mb") * 1024 * 1024)))
  for (const path of ["/never", "/stuck"]) get(path, () => new Promise(() => {}))
  for (const path of ["/throw", "/reject"] as const) {
    get(path, async ({ number }) => {
      trouble[path](number("ms"))
      return "done"
    })
  }
  app.addContentTypeParser("*", (_request, body, done) => done(null, body))
  app.post("/upload", async ({ body }) => {
    began("/upload")
    let bytes = 0
    for await (const chunk of body) bytes += (chunk as Buffer).length
    return `${bytes}`
  })
  return app
}

/** One application, or two. */
export const application = (): ReadonlyArray<App> => {
  const apps: Array<App> = []
  for (const name of settings.second ? ["second", "port"] : ["port"]) {
    const app = make()
    if (name === "port") {
      app.addHook("onClose", closeDatabase)
      app.addHook("onClose", closeCache)
    }
    if (settings.mode.startsWith("http")) attach(app.server)
    announce(app.server, name)
    app.address = name === "port" ? address : { host: "127.0.0.1", port: 0 }
    apps.push(app)
  }
  return apps
}

export const listenAll = (apps: ReadonlyArray<App>): Promise<unknown> =>
  Promise.all(apps.map((app) => app.listen(app.address!)))

export const closeAll = (apps: ReadonlyArray<App>): Promise<unknown> => Promise.all(apps.map((app) => app.close()))

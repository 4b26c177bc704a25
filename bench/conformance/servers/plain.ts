/**
 * The application for servers of Node's own: the same routes as in `effect.ts`, and the shape that every subject without
 * one of its own has: stop the servers on SIGTERM or SIGINT, then clean up.
 */
import { createServer, type IncomingMessage, type RequestListener, type Server } from "node:http"
import { createSecureServer, createServer as createHttp2 } from "node:http2"
import { createServer as createHttps } from "node:https"
import type { AddressInfo, Server as NetServer } from "node:net"
import type { Duplex } from "node:stream"
import { type WebSocket, WebSocketServer } from "ws"
import { cert, key } from "../../../test/support/certificate.ts"
import { began, closeCache, closeDatabase, database, say, settings } from "./settings.ts"

export const target = (url: string | undefined): { path: string; number: (name: string) => number } => {
  const { pathname, searchParams } = new URL(url ?? "/", "http://localhost")
  return { path: pathname, number: (name) => Number(searchParams.get(name)) }
}

/** What goes wrong outside of any request. */
export const trouble = {
  "/throw": (ms: number) =>
    void setTimeout(() => {
      throw new Error("thrown outside")
    }, ms),
  "/reject": (ms: number) => void setTimeout(() => void Promise.reject(new Error("rejected outside")), ms)
}

export const routes: RequestListener = (request, response) => {
  const { number, path } = target(request.url)
  response.on("finish", () => say(`answered ${path}`))
  switch (path) {
    case "/quick":
      response.end("quick")
      break
    case "/slow":
      began(path)
      setTimeout(() => response.end("slow"), number("ms"))
      break
    case "/db":
      began(path)
      setTimeout(() => response.end(database.open ? "open" : "closed"), number("ms"))
      break
    case "/stream": {
      began(path)
      let left = number("n")
      response.writeHead(200, { "content-type": "text/plain" })
      const next = () => {
        response.write(`chunk ${--left}\n`)
        if (left === 0) response.end()
        else setTimeout(next, number("ms"))
      }
      next()
      break
    }
    case "/sse": {
      began(path)
      response.writeHead(200, { "content-type": "text/event-stream" })
      const timer = setInterval(() => response.write("data: tick\n\n"), 50)
      response.on("close", () => clearInterval(timer))
      break
    }
    case "/upload": {
      began(path)
      let bytes = 0
      request.on("data", (chunk: Buffer) => {
        bytes += chunk.length
      })
      request.on("end", () => response.end(`${bytes}`))
      break
    }
    case "/big":
      began(path)
      response.end(Buffer.alloc(number("mb") * 1024 * 1024))
      break
    case "/never":
    case "/stuck":
      began(path)
      break
    case "/throw":
    case "/reject":
      trouble[path](number("ms"))
      response.end("done")
      break
    default:
      response.statusCode = 404
      response.end()
  }
}

export interface Hooks {
  readonly onWebSocket?: (socket: WebSocket) => void
}

/** A WebSocket at `/ws` and a raw upgrade at `/raw`, both of which echo; and CONNECT. */
export const attach = (server: NetServer, hooks: Hooks = {}): void => {
  const sockets = new WebSocketServer({ noServer: true })
  const echo = (socket: Duplex) => {
    socket.on("error", () => {})
    socket.on("data", (chunk: Buffer) => socket.write(chunk))
    socket.on("end", () => socket.end())
  }
  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    if (target(request.url).path === "/ws") {
      sockets.handleUpgrade(request, socket, head, (webSocket) => {
        webSocket.on("message", (data) => webSocket.send(data.toString()))
        hooks.onWebSocket?.(webSocket)
      })
    } else {
      socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
      echo(socket)
    }
  })
  server.on("connect", (_request: IncomingMessage, socket: Duplex) => {
    socket.write("HTTP/1.1 200 Connected\r\nx-tunnel: yes\r\n\r\n")
    echo(socket)
  })
}

/** A server of the mode that is asked for; the types of Node's HTTP/2 servers are not those of the others. */
export const create = (listener?: RequestListener): Server => {
  const server = (
    settings.mode === "http"
      ? createServer()
      : settings.mode === "https"
        ? createHttps({ cert, key })
        : settings.mode === "h2c"
          ? createHttp2()
          : createSecureServer({ cert, key })
  ) as Server
  if (listener !== undefined) server.on("request", listener)
  return server
}

/** Says where it listens. */
export const announce = (server: NetServer, name = "port"): void => {
  server.once("listening", () => say(`${name} ${(server.address() as AddressInfo).port}`))
}

export const address = { host: "127.0.0.1", port: settings.port }

/** The servers of the application: one, or two. Listening, each with the routes and what can be upgraded on it. */
export const servers = (wrap: (server: Server) => Server = (server) => server): ReadonlyArray<Server> =>
  (settings.second ? ["second", "port"] : ["port"]).map((name) => {
    const server = wrap(create(routes))
    if (settings.mode.startsWith("http")) attach(server)
    announce(server, name)
    return server.listen(name === "port" ? address : { host: "127.0.0.1", port: 0 })
  })

export const cleanUp = async (): Promise<void> => {
  await closeCache()
  await closeDatabase()
}

/** As the documentation of Node and of most frameworks has it: stop once on either signal, and let the event loop empty. */
export const onSignal = (stop: () => Promise<unknown>): void => {
  let stopping: Promise<void> | undefined
  const begin = () => {
    stopping ??= stop().then(cleanUp)
  }
  process.once("SIGTERM", begin)
  process.once("SIGINT", begin)
}

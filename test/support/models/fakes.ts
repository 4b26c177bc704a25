/**
 * What an HTTP listener sees of Node, as far as it uses it, with nothing behind: a server, sockets and responses.
 */
import type { Fiber } from "effect"
import { EventEmitter } from "node:events"
import type { IncomingMessage, Server, ServerResponse } from "node:http"
import type { Socket } from "node:net"
import { of } from "../../../src/internal/connection.ts"
import { Handler } from "../../../src/internal/handler.ts"
import { handled } from "../../../src/internal/hijack.ts"
import { HttpListener } from "../../../src/internal/http.ts"
import { Process } from "../../../src/internal/process.ts"
import type { Drain } from "../../../src/internal/drain.ts"
import type { Timing } from "./registry.ts"
import type { World } from "./world.ts"

class FakeServer extends EventEmitter {
  _emitCloseIfDrained = (): void => {}
  closes = 0
  close(): void {
    this.closes++
  }
}

export class FakeSocket extends EventEmitter {
  readonly remoteAddress = "127.0.0.1"
  readonly remotePort = 1
  readonly writableLength = 0
  bytesRead = 0
  destroyed = false
  closedAt: number | undefined
  private readonly world: World

  constructor(world: World) {
    super()
    this.world = world
  }

  destroy(): void {
    if (this.destroyed) return
    this.destroyed = true
    this.closedAt = this.world.now
    this.world.nextTick(() => this.emit("close"))
  }
}

export class FakeResponse extends EventEmitter {
  readonly req: { complete: boolean; readonly headers: object; readonly method: string; readonly url: string }
  readonly writableEnded = false
  shouldKeepAlive = true
  headersSent = false
  _header = ""
  /** What the head said, once it is out. */
  says: "nothing yet" | "keep-alive" | "close" = "nothing yet"

  /** To a request that is whole, or whose body is still on its way. */
  constructor(whole: boolean) {
    super()
    this.req = { complete: whole, headers: whole ? {} : { "content-length": "1" }, method: "GET", url: "/" }
  }

  getHeader(): undefined {}

  writeHead(): this {
    this.headersSent = true
    this.says = this.shouldKeepAlive ? "keep-alive" : "close"
    this._header = `Connection: ${this.says}\r\n`
    return this
  }
}

/** One connection, and what is in flight on it. */
export class FakeLine {
  readonly socket: FakeSocket
  readonly responses: Array<FakeResponse> = []
  handler: Handler | undefined
  interrupted = false
  readonly releases: Array<() => void> = []

  constructor(socket: FakeSocket) {
    this.socket = socket
  }
}

/** An HTTP listener over those, and the application on it. */
export class FakeListener {
  readonly lines: Array<FakeLine> = []
  readonly listener: HttpListener
  /** When whoever waits for the drain was told that it is over. */
  doneAt: number | undefined
  readonly server = new FakeServer()
  private readonly world: World
  private readonly handlers = new Set<Handler>()
  private draining = false

  constructor(world: World, timing: Timing) {
    this.world = world
    this.listener = new HttpListener(this.server as unknown as Server, {
      kind: "http",
      timing,
      host: Process.defaultValue(),
      onDrain: () => {
        this.draining = true
        for (const handler of Array.from(this.handlers)) handler.end()
      },
      onForce: () => {},
      handlers: () => this.handlers.size,
      abandoned: () => this.handlers.size,
      handling: () => ({ requests: new Map(), upgrades: this.handlers }),
      isEndless: () => false
    })
    this.listener.opened({ address: ":0", stop: () => {} }, undefined)
    this.listener.drains({ check: this.check, worked: this.check } as unknown as Drain)
  }

  private readonly check = (): void => {
    if (this.draining && this.listener.isEmpty()) this.doneAt ??= this.world.now
  }

  /** As `Drain` does it. */
  begin(): void {
    this.listener.begin()
    this.check()
  }

  force(): void {
    this.listener.force()
    this.check()
  }

  accept(): FakeLine {
    const line = new FakeLine(new FakeSocket(this.world))
    this.lines.push(line)
    this.server.emit("connection", line.socket)
    return line
  }

  bytes(line: FakeLine): void {
    line.socket.bytesRead += 10
  }

  request(line: FakeLine, whole: boolean): void {
    this.bytes(line)
    const response = new FakeResponse(whole)
    line.responses.push(response)
    const request = { socket: line.socket } as unknown as IncomingMessage
    this.listener.onRequest(request, response as unknown as ServerResponse)
  }

  /** The body of the newest request has come to its end. */
  received(line: FakeLine): void {
    line.responses.at(-1)!.req.complete = true
  }

  /** The oldest response ends. Node closes the connection where it said so. */
  respond(line: FakeLine, slow: boolean): void {
    const response = line.responses.shift()!
    response.emit("close")
    if (response.says === "close" && !slow) line.socket.destroy()
  }

  /** Node tells a response that its connection has gone, but not those that are queued behind it. */
  hangUp(line: FakeLine): void {
    line.socket.destroy()
    const [first] = line.responses
    this.world.nextTick(() => first?.emit("close"))
  }

  upgrade(line: FakeLine): void {
    this.bytes(line)
    this.listener.onHijack({ socket: line.socket } as unknown as IncomingMessage, line.socket as unknown as Socket)
  }

  handle(line: FakeLine): void {
    const interruptUnsafe = () => void (line.interrupted = true)
    const fiber = { interruptUnsafe } as unknown as Fiber.Fiber<unknown, unknown>
    const connection = of(line.socket)!
    line.handler = new Handler(fiber, connection, false)
    this.handlers.add(line.handler)
    connection.adopt(line.handler)
  }

  handled(line: FakeLine): void {
    const handler = line.handler!
    line.handler = undefined
    this.handlers.delete(handler)
    handled(of(line.socket)!, handler, handler.isEnding)
    handler.gone()
    this.listener.worked()
  }
}

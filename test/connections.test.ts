/** When a connection that a drain closes counts as gone, and to whom that is told. */
import { assert, describe, it } from "@effect/vitest"
import { EventEmitter } from "node:events"
import type { Socket } from "node:net"
import type { Connection } from "../src/internal/connection.ts"
import { Connections } from "../src/internal/connections.ts"
import { Process } from "../src/internal/process.ts"

/** A socket that says that it has closed when it is told to, as Node's does in a later turn. */
class Stub extends EventEmitter {
  readonly bytesRead = 0
  readonly writableLength = 0
  destroyed = false
  readonly destroy = (): void => void (this.destroyed = true)
}

const opened = (socket: Stub) => {
  const gone: Array<Connection> = []
  const registry = new Connections({ quietPeriod: 0, closeTimeout: 0 }, Process.defaultValue(), (each) =>
    gone.push(each)
  )
  return { registry, gone, connection: registry.add(socket as unknown as Socket) }
}

describe("a connection that is closed", () => {
  it("counts as gone at once, and once", () => {
    const socket = new Stub()
    const { connection, gone, registry } = opened(socket)
    connection.expire()
    assert.isTrue(socket.destroyed)
    assert.deepStrictEqual([registry.all.size, gone], [0, [connection]])
    socket.emit("close")
    assert.deepStrictEqual(gone, [connection])
  })

  it("counts until it says that it has closed, where it has left its server", () => {
    const socket = new Stub()
    const { connection, gone, registry } = opened(socket)
    connection.hijacked = true
    connection.expire()
    assert.isTrue(socket.destroyed)
    assert.deepStrictEqual([registry.all.size, gone], [1, []])
    socket.emit("close")
    assert.deepStrictEqual([registry.all.size, gone], [0, [connection]])
  })
})

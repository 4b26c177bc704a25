/**
 * The connections of one listener.
 *
 * Node's own bookkeeping misses some of them: `closeIdleConnections` those that never spoke, `closeAllConnections` those
 * that were upgraded. So each has a record here.
 */
import type { Server, Socket } from "node:net"
import { Connection, of, type Registry, type Timing } from "./connection.ts"
import type { Process } from "./process.ts"
import { Sweep } from "./sweep.ts"

interface Encrypted {
  /** The socket that carries it. Private to Node, and pinned by a test. */
  readonly _parent?: Socket
}

export class Connections implements Registry {
  readonly all = new Set<Connection>()
  accepted = 0
  /** Its listener drains: whoever adopts a connection is told to end it. */
  draining = false
  readonly timing: Timing
  readonly host: Process
  readonly sweep: Sweep
  private readonly onClose: (connection: Connection) => void

  constructor(timing: Timing, host: Process, onClose: (connection: Connection) => void) {
    this.timing = timing
    this.host = host
    this.sweep = new Sweep(host)
    this.onClose = onClose
  }

  /**
   * Keeps a record of every connection that `server` accepts from now on. Node's own listeners are there already, and that
   * of an HTTP/2 server tells of the session at once: the record has to be made before.
   */
  attach(server: Server, onOpen: (connection: Connection) => void): void {
    server.prependListener("connection", (socket: Socket) => onOpen(this.add(socket)))
    server.prependListener("secureConnection", (socket: Socket & Encrypted) => {
      const connection = of(socket._parent)
      if (connection === undefined) return
      connection.carrier.off("close", closed)
      connection.secure(socket)
      socket.on("close", closed)
    })
  }

  /** Keeps a record of `socket`. */
  add(socket: Socket): Connection {
    this.accepted++
    const connection = new Connection(socket, this)
    this.all.add(connection)
    socket.on("close", closed)
    return connection
  }

  remove(connection: Connection): void {
    if (!this.all.delete(connection)) return
    this.sweep.cancel(connection)
    this.onClose(connection)
    connection.gone()
  }
}

function closed(this: Socket): void {
  const connection = of(this)
  if (connection !== undefined) connection.owner.remove(connection)
}

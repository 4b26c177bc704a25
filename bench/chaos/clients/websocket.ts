/**
 * A WebSocket client that numbers its messages. Each has to be acknowledged; those that were not when the server said 1001
 * are sent again on the next connection, and counted as repeated.
 *
 * The connection has failed when it ended in any other way. A message whose acknowledgement never came, although its server
 * had taken it, shows in what the servers say that they have processed.
 */
import { WebSocket } from "ws"
import { now } from "../ledger.ts"
import { type Client, onRequestPort } from "./client.ts"

/** How many messages may wait for their acknowledgement. */
const window = 4

export const webSocket = (client: Client): void => {
  const { heard, id, ledger, load, pause, stopping } = client
  const { counts } = ledger
  const unacknowledged = new Map<number, number>()
  let number = 0
  let socket: WebSocket
  let opened = now()
  let isOpen = false
  let isPausing = false

  const send = (message: number): void => {
    counts.sent++
    unacknowledged.set(message, now())
    socket.send(`${id} ${message}`)
  }

  const talk = (): void => {
    if (!isOpen || isPausing) return
    if (stopping()) {
      if (unacknowledged.size === 0) socket.close(1000)
      return
    }
    if (unacknowledged.size >= window) return
    send(number++)
    isPausing = true
    pause(0, 30, () => {
      isPausing = false
      talk()
    })
  }

  const open = (): void => {
    counts.connections++
    opened = now()
    let port: number | undefined
    let problem = ""
    let said = false
    socket = new WebSocket(`ws://${load.http.host}:${load.http.port}/socket`, {
      perMessageDeflate: false,
      finishRequest: (request) => {
        onRequestPort(request, (own) => (port = own))
        request.end()
      }
    })
    socket.on("open", () => {
      isOpen = true
      for (const message of Array.from(unacknowledged.keys())) {
        counts.repeated++
        send(message)
      }
      talk()
    })
    socket.on("message", (data) => {
      const message = Number(String(data).split(" ")[1])
      if (unacknowledged.delete(message)) counts.answered++
      else counts.twice++
      heard()
      talk()
    })
    socket.on("error", (error: NodeJS.ErrnoException) => {
      problem = error.code ?? error.message
    })
    socket.on("close", (code) => {
      if (said) return
      said = true
      isOpen = false
      if (code === 1000 && stopping() && unacknowledged.size === 0) return
      if (code === 1001) counts.sentAway++
      else {
        const written = Math.max(opened, ...unacknowledged.values())
        ledger.fail({ how: `closed with ${code} ${problem}`, opened, written, idle: undefined, port })
      }
      if (code === 1001) open()
      else pause(20, 50, open)
    })
  }
  client.onStop(talk)
  open()
}

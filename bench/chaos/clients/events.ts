/**
 * Event streams that are taken up again where they ended, by Last-Event-ID. The numbers of the events have no gaps, so a
 * missing one shows. A stream that ends in any way but the clean end of its body has failed.
 */
import { get } from "node:http"
import { now } from "../ledger.ts"
import { type Client, onRequestPort } from "./client.ts"

export const events = (client: Client): void => {
  const { heard, ledger, load, onStop, pause, stopping } = client
  const { counts } = ledger
  let last: number | undefined

  const open = (): void => {
    const opened = now()
    let port: number | undefined
    let over = false
    let rest = ""
    counts.connections++
    counts.sent++
    const end = (problem?: string): void => {
      if (over) return
      over = true
      if (stopping()) {
        counts.answered++
        return
      }
      if (problem !== undefined) {
        ledger.fail({ how: problem, opened, written: opened, idle: undefined, port })
        return pause(20, 50, open)
      }
      counts.answered++
      counts.sentAway++
      open()
    }
    const take = (event: string): void => {
      const number = Number(/^id: (\d+)$/m.exec(event)?.[1])
      if (last !== undefined && number <= last) counts.twice++
      else {
        if (last !== undefined) counts.lost += number - last - 1
        counts.events++
        last = number
      }
      heard()
    }
    const asked = get(
      { ...load.http, path: "/events", agent: false, headers: last === undefined ? {} : { "last-event-id": last } },
      (response) => {
        if (response.statusCode !== 200) {
          response.resume()
          return end(`status ${response.statusCode}`)
        }
        response.setEncoding("utf8")
        response.on("data", (chunk: string) => {
          const parts = (rest + chunk).split("\n\n")
          rest = parts.pop()!
          parts.forEach(take)
        })
        response.on("error", (error: NodeJS.ErrnoException) => end(error.code ?? error.message))
        response.on("end", () => end(rest === "" ? undefined : "half an event"))
      }
    )
    onRequestPort(asked, (own) => (port = own))
    asked.on("error", (error: NodeJS.ErrnoException) => end(error.code ?? error.message))
    onStop(() => asked.destroy())
  }
  open()
}

import { expect, it, vi } from 'vitest'
import { createRouteSoon } from '../../src/outbox/route-soon.ts'
import { createTelemetry } from '../../src/telemetry.ts'

const { log } = createTelemetry({ level: 'silent' })

it('runs once for the wake-ups of one moment, and again for those that come while it runs', async () => {
  const releases: (() => void)[] = []
  let underWay = 0
  const soon = createRouteSoon({
    log,
    route: async () => {
      expect((underWay += 1)).toBe(1)
      await new Promise<void>((resolve) => releases.push(resolve))
      underWay -= 1
    },
  })
  for (let n = 0; n < 100; n++) soon.wake()
  await vi.waitUntil(() => releases.length === 1, { timeout: 10_000 })
  soon.wake()
  soon.wake()
  releases[0]?.()
  await vi.waitUntil(() => releases.length === 2, { timeout: 10_000 })
  releases[1]?.()
  await soon.stop()
  expect(releases).toHaveLength(2)
})

it('goes on after a run that failed, and wakes nothing once it has stopped', async () => {
  let runs = 0
  const soon = createRouteSoon({
    log,
    route: async () => {
      runs += 1
      throw new Error('Postgres is away')
    },
  })
  soon.wake()
  await vi.waitUntil(() => runs === 1, { timeout: 10_000 })
  await soon.stop()
  soon.wake()
  await soon.stop()
  expect(runs).toBe(1)
})

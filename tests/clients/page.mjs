// Opens a page that uses MQTT.js in headless Chromium, as someone who tries it would.
// node page.mjs ADDRESS MESSAGE SCREENSHOT; ADDRESS is http:// or file://, MQTT_JS names the folder of node_modules.
// MQTT.js comes from there when the page takes it from unpkg.com.
// Waits until MESSAGE is on the console and on the page, presses the button, and waits until what comes back is on both.
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

// A browser takes its time on a busy machine.
const PATIENCE_MS = 30000
const CHROMIUM = '/usr/bin/chromium'
const [address, message, screenshot] = process.argv.slice(2)
const modules = join(process.env.MQTT_JS, 'node_modules')
const { chromium } = createRequire(join(process.env.MQTT_JS, 'package.json'))('playwright-core')

if (!existsSync(CHROMIUM)) {
  console.log(`${CHROMIUM} is missing: ./tests/run installs it`)
  process.exit(1)
}
const profile = mkdtempSync(join(tmpdir(), 'hikyaku-chromium-'))
const context = await chromium.launchPersistentContext(profile, {
  executablePath: CHROMIUM,
  headless: true,
  viewport: { width: 640, height: 360 },
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
})
const page = await context.newPage()
context.setDefaultTimeout(PATIENCE_MS)
const logged = []
page.on('console', (line) => logged.push(line.text()))
page.on('pageerror', (error) => logged.push(`error: ${error.message}`))
try {
  await context.route('https://unpkg.com/**', (route) => {
    const file = new URL(route.request().url()).pathname
    if (file !== '/mqtt/dist/mqtt.min.js') return route.abort()
    return route.fulfill({ contentType: 'text/javascript', body: readFileSync(join(modules, file)) })
  })
  // Listened for before the page can have subscribed.
  const first = page.waitForEvent('console', { predicate: (line) => line.text().includes(message) })
  await page.goto(address)
  await first
  await page.getByText(message).first().waitFor()
  console.log(`shown ${message}`)
  const answer = page.waitForEvent('console', { predicate: (line) => line.text().includes('page') })
  await page.getByRole('button').click()
  const text = (await answer).text()
  await page.getByText(text).first().waitFor()
  console.log(`shown ${text}`)
} catch (error) {
  console.log(`${error}\non the console:\n${logged.join('\n')}`)
  process.exitCode = 1
} finally {
  await page.screenshot({ path: screenshot }).catch(() => {})
  await context.close()
  rmSync(profile, { recursive: true, force: true })
}

// The CSRF token, read anew each time: signing in again in another tab changes it.

export function csrfToken() {
  const cookie = document.cookie.split("; ").find((part) => part.split("=")[0].endsWith("csrftoken"));
  return cookie ? decodeURIComponent(cookie.slice(cookie.indexOf("=") + 1)) : "";
}

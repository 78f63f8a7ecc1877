; inherits: typescript
; extensions: .tsx

; extensions: .rb .rake .gemspec .ru .rbi .podspec
; names: Rakefile Gemfile Guardfile Vagrantfile Capfile Podfile Fastfile Brewfile
; interpreters: ruby jruby
(module name: (_) @name body: (_)? @body) @definition.namespace
(class name: (_) @name body: (_)? @body) @definition.class
(method name: (_) @name body: (_)? @body) @definition.function
(singleton_method name: (_) @name body: (_)? @body) @definition.method
(module (body_statement (method name: (_) @name body: (_)? @body) @definition.method))
; private def f … end
(call arguments: (argument_list .
  (method name: (_) @name body: (_)? @body) @definition.method .)) @outer
(call arguments: (argument_list .
  (singleton_method name: (_) @name body: (_)? @body) @definition.method .)) @outer
; Point = Struct.new(:x) do … end
(assignment
  left: (constant) @name
  right: (call
    receiver: (constant) method: (identifier) block: (do_block) @body)) @definition.class

(call method: (identifier) @reference.call)
(call method: (constant) @reference.call)

((call method: (identifier) @_require arguments: (argument_list . (string))) @import
  (#match? @_require "^require(_relative)?$"))
